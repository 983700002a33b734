"""The data of a run: recorded when it is started, compared when it is resumed."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from nas.options.definition import EvaluationOptions
from trainers.baselines import Baselines
from trainers.data import fingerprint
from trainers.data.fingerprint import Fingerprint

UNKNOWN = (
    "the run was started by a version that did not record its data; whether they are"
    " still the same cannot be checked"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run measures on: in one line for people, and how to tell it again.

    `fingerprint` is None where no data are read. `splits` are their sizes by name.
    `chance` is the accuracy of always naming the largest class of the validation split.
    `baselines` measures what takes no network; None where no images are read.
    """

    description: str
    fingerprint: Fingerprint | None = None
    splits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    chance: float | None = None
    baselines: Callable[[], Baselines] | None = None


def check(recorded: Fingerprint | None, found: Fingerprint | None) -> str | None:
    """Refuses to go on with other data than a run was started with.

    Returns:
      A line about what cannot be checked; None if everything was.

    Raises:
      ValueError: if the data differ. One line, which names the difference.
    """
    if found is None:
        return None
    if recorded is None:
        return UNKNOWN
    if changes := fingerprint.differences(recorded, found):
        raise ValueError(
            "a run goes on with the data that it was started with, and since then"
            f" {'; '.join(changes)}; put {found.source} back as it was, or start a new"
            " run"
        )
    return None


def located(options: EvaluationOptions, data: RunData) -> EvaluationOptions:
    """Returns `options` with absolute paths, which hold in any working directory."""
    source = options.dataset
    if data.fingerprint is not None:
        source = data.fingerprint.source
    return dataclasses.replace(
        options, dataset=source, data_dir=absolute(options.data_dir)
    )


def absolute(path: str | None) -> str | None:
    """Returns a path that holds in any working directory; None for None."""
    return None if path is None else str(Path(os.path.expanduser(path)).resolve())
