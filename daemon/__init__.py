"""The shell: observes, asks core, applies; starts children."""
