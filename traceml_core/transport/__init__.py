"""Telemetry over TCP: keys, server, client."""
