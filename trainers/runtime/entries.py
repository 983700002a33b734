"""Named files that hold what was given for their name, or count as missing.

Several processes may read and write one folder at once, and die in the middle of it.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

_DIGEST_BYTES = 32
_DRAFT = "tmp"
_OLDEST_DRAFT_SECONDS = 3600.0  # writing an entry takes less than a second


def read(path: Path) -> bytes | None:
    """Returns what `write` was given for `path`.

    None if it is missing, damaged, or was written under another name.
    """
    try:
        found = path.read_bytes()
    except OSError:
        return None
    digest, content = found[:_DIGEST_BYTES], found[_DIGEST_BYTES:]
    return content if _digest(path.name, content) == digest else None


def write(path: Path, content: bytes) -> None:
    """Replaces the whole file; a folder that cannot be written stays as it is."""
    draft = None
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=_DRAFT)
        with os.fdopen(handle, "wb") as file:
            file.write(_digest(path.name, content) + content)
        Path(draft).replace(path)
    except OSError:  # a full disk, for one
        if draft is not None:
            with contextlib.suppress(OSError):
                Path(draft).unlink(missing_ok=True)


def prune(folder: Path, max_bytes: int) -> None:
    """Removes the oldest entries beyond `max_bytes`, and what killed writers left.

    Raises:
      OSError: if the folder cannot be read or written.
    """
    drafts_before = time.time() - _OLDEST_DRAFT_SECONDS
    kept: list[tuple[float, int, Path]] = []
    for entry in os.scandir(folder):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # another process has just renamed or pruned it
            continue
        if not entry.is_file(follow_symlinks=False):
            continue
        path = Path(entry.path)
        if entry.name.startswith(_DRAFT) and status.st_mtime < drafts_before:
            path.unlink(missing_ok=True)
        else:
            kept.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size


def _digest(name: str, content: bytes) -> bytes:
    digest = hashlib.sha256(f"{len(name)}:{name}".encode())
    digest.update(content)
    return digest.digest()
