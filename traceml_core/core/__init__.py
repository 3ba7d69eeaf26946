"""What every part speaks in: phases, rows, settings, identity, the run folder, units."""
