"""Talks with memory: sessions, their encrypted histories, what of them goes with a new message, and the doors to them."""
