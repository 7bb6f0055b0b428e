"""Teachers that ship: each makes puzzles of its levels, without a repeat across seeds, and checks answers exactly."""
