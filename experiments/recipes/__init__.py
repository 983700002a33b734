"""Searches as runnable files: command, hardware, duration, and what came of it."""
