"""TensorBoard scalars of a search as a whole: one log, however many children."""

from pathlib import Path

from tensorboardX import SummaryWriter

from nas.monitoring.progress import Progress
from nas.study.trial import CompletedTrial, FinishedTrial, Trial


class Scalars:
    """A listener of a session that writes one step for each finished child."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        """Writes to `folder`; after an interruption, on from the last step."""
        self._progress = progress
        self._writer = SummaryWriter(
            str(folder),
            flush_secs=10,
            purge_step=progress.num_done + 1,
            # Else a search resumed within the second would replace the file.
            filename_suffix=f".{progress.num_done}",
        )

    def started(self, trial: Trial) -> None:
        """Nothing to log."""

    def finished(self, child: FinishedTrial) -> None:
        """Logs the child and what is best so far; not what is measured again."""
        if not self._progress.last_is_new:
            return
        progress, step = self._progress, self._progress.num_done
        values: dict[str, float] = {"search/infeasible": progress.num_infeasible}
        if isinstance(child, CompletedTrial):
            values |= {
                "child/reward": child.reward,
                **{f"child/{name}": value for name, value in child.metrics.items()},
                "child/compile_seconds": child.seconds.compile,
                "child/train_seconds": child.seconds.train,
            }
        if progress.best is not None:
            values["search/best_reward"] = progress.best.reward
        if progress.children_per_hour is not None:
            values["search/children_per_hour"] = progress.children_per_hour
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=child.finished)

    def close(self) -> None:
        """Flushes what is left."""
        self._writer.close()
