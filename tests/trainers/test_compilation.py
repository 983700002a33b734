"""The persistent cache of compiled programs, in processes of its own."""

import json
import os
import subprocess
import sys

import pytest

from trainers.runtime import compilation

PROGRAM = """
import json, pathlib, sys
import jax, jax.numpy as jnp
from trainers.runtime import compilation
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
)
used = compilation.use_cache(pathlib.Path(sys.argv[1]))
with compilation.measured() as spent:
    value = jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(8))
print(json.dumps([used, len(hits), float(value.sum()), spent.seconds]))
"""


def run(folder, program=PROGRAM):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(folder)],
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


def cut(content):
    return content[:10]


def flip(content):
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b""])
def test_a_corrupt_entry_is_replaced(tmp_path, damage):
    _, _, first, _ = run(tmp_path)
    whole = {path: path.read_bytes() for path in entries(tmp_path)}
    for path, content in whole.items():
        path.write_bytes(damage(content))
    used, hits, second, _ = run(tmp_path)
    assert used
    assert (hits, second) == (0, first)
    used, hits, third, _ = run(tmp_path)
    assert hits > 0
    assert third == first


def test_entries_that_took_each_others_names_are_not_run(tmp_path):
    """Two functions of one shape: each process runs both, and prints what they give."""
    program = PROGRAM.replace(
        "value = jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(8))",
        "values = [jax.jit(f)(jnp.ones(3)) for f in (lambda x: x + 1, lambda x: x - 1)]"
        "; value = values[0] - 10 * values[1]",
    )
    assert run(tmp_path, program)[2] == 6.0  # three times 2 - 10 * 0
    a, b = sorted(p for p in entries(tmp_path) if "lambda" in p.name)
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    assert run(tmp_path, program)[2] == 6.0


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    used, _, value, _ = run(tmp_path / "file" / "folder")
    assert not used
    assert value == pytest.approx(8 * 0.8414709848)  # sin(1) on the diagonal


def test_folders_are_made_for_this_user_alone(tmp_path):
    umask = os.umask(0)
    try:
        assert compilation.refusal(tmp_path / "a" / "b") is None
    finally:
        os.umask(umask)
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert [path.name for path in made][:2] == ["a", "b"]
    assert len(made) == 3
    assert {path.stat().st_mode & 0o7777 for path in made} == {0o700}


@pytest.mark.parametrize(("mode", "part"), [(0o777, ""), (0o770, ""), (0o702, "own")])
def test_a_folder_that_others_can_write_is_refused(tmp_path, mode, part):
    folder = tmp_path / "cache"
    assert compilation.refusal(folder) is None
    (own,) = folder.iterdir()
    open_to_others = own if part else folder
    open_to_others.chmod(mode)
    reason = compilation.refusal(folder)
    assert f"{open_to_others} must be writable by this user alone" in reason
    assert f"mode {mode:04o}" in reason
    assert "MBCONV_NAS_CACHE" in reason
    assert "\n" not in reason
    used, hits, _, _ = run(folder)
    assert (used, hits) == (False, 0)
    assert entries(folder) == []


def test_a_folder_of_somebody_elses_is_refused(tmp_path, monkeypatch):
    assert compilation.refusal(tmp_path) is None
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert "must be this user's own folder" in compilation.refusal(tmp_path)


def test_a_folder_that_others_can_replace_is_refused(tmp_path):
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o777)
    assert f"{above} has mode 0777" in compilation.refusal(above / "cache")
    above.chmod(0o1777)  # as /tmp is
    assert compilation.refusal(above / "cache") is None


def test_a_link_in_place_of_the_own_folder_is_refused(tmp_path):
    assert compilation.refusal(tmp_path / "cache") is None
    (own,) = (tmp_path / "cache").iterdir()
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    assert "must be a folder, and is not one" in compilation.refusal(tmp_path / "cache")
