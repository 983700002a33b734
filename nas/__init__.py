"""What a user runs: the search and its report. The only package that imports ray."""
