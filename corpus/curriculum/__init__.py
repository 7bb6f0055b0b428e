"""Skills with levels, their teachers, and who decides what is learnt next."""
