"""What a user runs: search, scale, report. The only package that imports ray."""
