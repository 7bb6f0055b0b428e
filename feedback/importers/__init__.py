"""Logs of other systems as signals."""
