"""Flax NNX modules built from a spec."""
