"""Packs releases, rsyncs them and the wish to the inference boxes, and reads back what the boxes say."""
