"""Two sides of runs set against each other, from their final summaries alone."""
