"""What pytest leaves alone: programs that the tests here start."""

collect_ignore = ["overheard.py", "pretend_search.py", "real_search.py"]
