"""What is made before the inbox. Its output is a drop. Sees rendering, store and core only."""
