"""The pages on which people look at runs, and how they are served."""
