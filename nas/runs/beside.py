"""What stands beside a search's result: what takes no network reaches on its data.

baselines.json in the run's folder, written once, when the search has ended.
"""

from pydantic import TypeAdapter, ValidationError

from nas.runs.run_folder import RunFolder
from search_space import files
from trainers.baselines import Baseline, Baselines

_MAX_BYTES = 2**16
_BASELINES = TypeAdapter(Baselines)


def write(folder: RunFolder, baselines: Baselines) -> None:
    """Writes them.

    Raises:
      OSError: if the file cannot be written.
    """
    text = _BASELINES.dump_json(baselines, indent=2).decode()
    files.write_whole(folder.baselines, text + "\n")


def read(folder: RunFolder) -> Baselines | None:
    """Returns what was written; None if nothing was, or it is damaged."""
    try:
        data = files.read_bounded(folder.baselines, _MAX_BYTES)
        found = _BASELINES.validate_json(data)
    except (OSError, ValueError, ValidationError):
        return None
    shares = (found.majority.accuracy, found.linear.accuracy)
    return found if all(0.0 <= share <= 1.0 for share in shares) else None


def describe(baselines: Baselines) -> str:
    """Returns them in a line."""
    return (
        f"always the largest class {_shown(baselines.majority)}; a linear model of "
        f"{baselines.resolution}x{baselines.resolution} pixels "
        f"{_shown(baselines.linear)}, fitted to {baselines.num_train:,} images"
    )


def _shown(baseline: Baseline) -> str:
    sign = "\N{PLUS-MINUS SIGN}"
    return f"{baseline.accuracy:.2%} {sign} {100 * baseline.error:.2f}"
