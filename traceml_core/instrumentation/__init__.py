"""The measuring side on the training thread: clock, steps, device, memory, gradients."""
