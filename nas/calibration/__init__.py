"""How far short trainings can be trusted: what is trained for it, and the analysis."""
