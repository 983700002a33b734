"""Optional checks against other implementations; they need packages of their own."""
