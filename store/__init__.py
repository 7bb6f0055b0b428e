"""Remembers: the only code that writes lorad's state. Paths, atomic writes, locks, journal, ledger, seals."""
