"""The domain step_time: context, policy, rules, api."""
