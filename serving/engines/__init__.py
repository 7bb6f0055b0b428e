"""What computes an answer, behind one port. Implementations are imported by the registry alone."""
