"""Comparisons with what a user would otherwise use, measured in one run."""
