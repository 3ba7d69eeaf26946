"""The report's sections, one folder each."""
