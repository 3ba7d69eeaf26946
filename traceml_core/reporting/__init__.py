"""The account of a run: sections, final summary, card."""
