"""Decides: records, config schema, lifecycle tables and `decide(facts, now)`. No file, clock, process or network."""
