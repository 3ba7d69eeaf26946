"""The domain process: context, policy, rules, api."""
