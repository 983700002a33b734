"""Recipes, benchmarks and recorded results; nothing imports it."""
