"""The telemetry of one rank: session, lifecycle, sender, rendezvous."""
