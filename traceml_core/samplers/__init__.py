"""What turns a look at the process and the machine into rows, on the sender thread."""
