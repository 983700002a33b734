"""Optional checks: against other implementations, and of one commit against another."""
