"""`lorad fix`: repairs that a report offers, applied to a copy of the file, with counts of all that was done."""
