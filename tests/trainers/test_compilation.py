"""The persistent cache of compiled programs, in processes of its own."""

import json
import os
import subprocess
import sys

import pytest

from trainers import compilation

PROGRAM = """
import json, pathlib, sys
import jax, jax.numpy as jnp
from trainers import compilation
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
)
used = compilation.use_cache(pathlib.Path(sys.argv[1]))
with compilation.measured() as spent:
    value = jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(8))
print(json.dumps([used, len(hits), float(value.sum()), spent.seconds]))
"""


def run(folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def entries(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    used, hits, first, seconds = run(tmp_path)
    assert used
    assert hits == 0
    assert seconds > 0
    assert entries(tmp_path)
    used, hits, second, _ = run(tmp_path)
    assert used
    assert hits > 0
    assert second == first


def test_a_corrupt_entry_does_no_harm(tmp_path):
    _, _, first, _ = run(tmp_path)
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:10])
    used, _, second, _ = run(tmp_path)
    assert used
    assert second == first


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    used, _, value, _ = run(tmp_path / "file" / "folder")
    assert not used
    assert value == pytest.approx(8 * 0.8414709848)  # sin(1) on the diagonal


def test_the_oldest_entries_beyond_the_limit_are_removed(tmp_path):
    compilation._prune(tmp_path, 0)
    for age in range(5):
        path = tmp_path / f"entry{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    compilation._prune(tmp_path, 250)
    assert sorted(path.name for path in entries(tmp_path)) == ["entry0", "entry1"]
