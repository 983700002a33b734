"""Where a study keeps what must outlive it: its run's folder."""

import contextlib
import io
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nas.runs import journal
from nas.runs.run_folder import RunFolder
from nas.study.study import Snapshot
from nas.study.trial import FinishedTrial
from search_space import files

_MAX_BYTES = 2**28  # a controller that remembers 20,000 results takes 5 MB


class RunStore:
    """A journal to append to, and beside it the controller's last snapshot.

    The journal is the state. The snapshot lets an interrupted search go on exactly as
    it would have; without it, the controller is told of the journal's trials.
    """

    def __init__(self, folder: RunFolder, contents: journal.Contents) -> None:
        """Continues the journal in `folder`, whose `contents` were just read.

        Raises:
          OSError: if it cannot be opened for writing.
        """
        self._folder = folder
        self._writer = journal.Writer(folder.journal, contents)

    def append(self, trial: FinishedTrial) -> None:
        """See `nas.study.study.Store`."""
        self._writer.append(trial)

    def save(self, snapshot: Snapshot) -> None:
        """See `nas.study.study.Store`."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **snapshot)
        files.write_whole(self._folder.controller, buffer.getvalue())

    def keep_weights(self, index: int, weights: bytes) -> None:
        """See `nas.study.study.Store`."""
        self._folder.weights.mkdir(exist_ok=True)
        files.write_whole(self._weights(index), weights)

    def weights(self, index: int) -> bytes | None:
        """See `nas.study.study.Store`."""
        try:
            return files.read_bounded(self._weights(index), _MAX_BYTES)
        except (OSError, ValueError):
            return None  # dropped, or of another machine: it starts anew

    def drop_weights(self, index: int) -> None:
        """See `nas.study.study.Store`."""
        self._weights(index).unlink(missing_ok=True)

    def drop_all_weights(self) -> None:
        """Forgets all weights: nobody goes on any more."""
        if self._folder.weights.is_dir():
            for path in self._folder.weights.glob("*.safetensors"):
                path.unlink()
            with contextlib.suppress(OSError):  # what is not ours stays
                self._folder.weights.rmdir()

    def _weights(self, index: int) -> Path:
        return self._folder.weights / f"{index}.safetensors"

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the journal."""
        self._writer.__exit__(kind, error, trace)


def load_snapshot(folder: RunFolder) -> dict[str, NDArray[Any]] | None:
    """Returns the snapshot in `folder`; None if there is none that can be read.

    Nothing is unpickled.
    """
    try:
        data = files.read_bounded(folder.controller, _MAX_BYTES)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
                return None
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return None
