"""Where TraceML's own failures go."""
