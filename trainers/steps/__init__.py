"""Training steps: a network compiled whole, or unit by unit."""
