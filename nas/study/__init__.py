"""A search as data and rules: what is proposed, measured and rewarded."""
