"""How a run looks while it goes on: presentation only, of what its summary holds."""
