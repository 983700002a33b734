"""Compilation and its caches, devices, memory."""
