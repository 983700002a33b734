"""Trained networks outside of training: folded, saved, converted, timed."""
