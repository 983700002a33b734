"""A run's folder, its journal, where its results come from."""
