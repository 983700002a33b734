"""What an architecture is, and what it costs. No JAX."""
