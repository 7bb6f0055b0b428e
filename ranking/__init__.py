"""Judges score files: order, statistics, verdict, evidence. No tensors: it reads what a trainer child wrote."""
