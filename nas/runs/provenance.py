"""How a search was started: command, versions, hardware, for config.json."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from nas.runs.run_folder import RunFolder
from search_space import files

_MAX_BYTES = 2**24  # a start takes some 2,000
_PACKAGES = ("mbconv-nas", "jax", "jaxlib", "flax", "optax", "ray", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a result."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def write_config(
    folder: RunFolder,
    *,
    command: list[str],
    options: dict[str, Any],
    seed: int,
) -> None:
    """Adds this start of the search to config.json, which lists them all.

    Raises:
      ValueError: if the file is there and is not ours.
      OSError: if it cannot be written.
    """
    starts = _earlier_starts(folder.config)
    starts.append(
        {
            "command": command,
            "options": options,
            "seed": seed,
            "started": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
            "versions": versions(),
            "git_commit": git_commit(),
            "hardware": hardware(),
        }
    )
    text = json.dumps({"version": 1, "starts": starts}, indent=2)
    files.write_whole(folder.config, text + "\n")


def _earlier_starts(path: Path) -> list[Any]:
    if not path.exists():
        return []
    remedy = "remove it (the journal has what matters)"
    try:
        record = json.loads(files.read_bounded(path, _MAX_BYTES))
    except (ValueError, RecursionError):
        raise ValueError(f"{path} must hold JSON and does not; {remedy}") from None
    if not isinstance(record, dict) or not isinstance(record.get("starts"), list):
        raise ValueError(f"{path} must list starts and does not; {remedy}")
    return record["starts"]


def of_result() -> dict[str, Any]:
    """Returns where this process's results come from."""
    return {
        "command": command_line(),
        "git_commit": git_commit(),
        "versions": versions(),
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """Returns what the machine is."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def git_commit() -> str | None:
    """Returns the commit of the checkout that this file is in; None outside of one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def command_line() -> list[str]:
    """Returns the command that started this process, without Python's own path.

    Results are passed on, and that path says more about a machine than about them.
    """
    return [Path(sys.executable).name, *sys.orig_argv[1:]]
