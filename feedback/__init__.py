"""What people and programs say about answers, made into rows. Sees rendering, store and core only."""
