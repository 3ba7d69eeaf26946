"""The only place where numbers are reduced."""
