"""Turns an architecture into a measured accuracy."""
