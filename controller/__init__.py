"""Proposes token sequences and learns from their rewards. Sees choice counts only."""
