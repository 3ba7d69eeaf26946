"""The report as a page: what the summary says, drawn in a browser. Nothing is computed here."""
