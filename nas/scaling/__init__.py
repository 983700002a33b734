"""Families of networks, and the search for their scaling coefficients."""
