"""The domain step_memory: context, policy, rules, api."""
