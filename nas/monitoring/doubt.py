"""Says early in a search what its first children's numbers cannot carry."""

import dataclasses

from rich.console import Console

from nas.options import terminal
from nas.runs import doubts, journal
from nas.study.trial import CompletedTrial, FinishedTrial, Trial

_AFTER = 10  # children of a study


class EarlyDoubt:
    """A listener that speaks once, when ten children are there.

    A search whose children all stand at chance is better stopped than waited for.
    """

    def __init__(self, console: Console, contents: journal.Contents) -> None:
        """Of the study that `contents` began."""
        self._console = console
        self._contents = contents
        self._records = list(contents.records)

    def started(self, trial: Trial) -> None:
        """Nothing to say."""

    def finished(self, child: FinishedTrial) -> None:
        """Says what is to be doubted, if this is the tenth."""
        self._records.append(child)
        if len(self._records) != _AFTER or not isinstance(child, CompletedTrial):
            return
        so_far = dataclasses.replace(self._contents, records=tuple(self._records))
        for doubt in doubts.of(so_far):
            shown = terminal.printable(f"{'Doubt':<11} so far, {doubt}")
            self._console.print(shown, markup=False, highlight=False)
