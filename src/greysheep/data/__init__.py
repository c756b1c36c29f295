"""Logs: read, clean, split; the named sets and the simulator."""
