"""Rules over reduced numbers: from contexts to issues."""
