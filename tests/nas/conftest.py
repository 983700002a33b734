"""What pytest leaves alone here, and searches that must not start Ray."""

import sys

import pytest

import nas.execution

# Programs that the tests here start.
collect_ignore = ["overheard.py", "pretend_search.py", "real_search.py"]


@pytest.fixture
def no_ray(monkeypatch):
    """Importing Ray fails, as does whatever would use it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nas.execution.ray_workers", raising=False)
    monkeypatch.delattr(nas.execution, "ray_workers", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
