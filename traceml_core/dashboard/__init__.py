"""The dashboard: a local web page that shows the runs of a folder, live or finished, from their summaries."""
