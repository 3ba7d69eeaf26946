"""The one process of a run that receives telemetry and builds the report."""
