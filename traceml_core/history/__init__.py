"""The SQLite file of a run: the only place that speaks SQL."""
