"""The domain system: context, policy, rules, api."""
