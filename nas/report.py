"""Shows a run: as a file, or live in the browser while it goes on.

    python -m nas.report runs/20250101-120000
    python -m nas.report runs/20250101-120000 --serve
    python -m nas.report runs/20250101-120000 runs/20250102-120000

The first writes report.html, best.json and pareto.json in the run's folder, from its
journal alone: what a search does at its end, for one that was killed or is still
running. For a search for coefficients by `nas.scale` it writes the family's files,
for a calibration by `nas.calibrate` calibration.json and report.html.
The second serves the same page on this machine and follows the search. The third
compares runs, as a file or with --serve. Nothing in a run's folder is executed.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from nas.calibration import plan
from nas.monitoring import policy_log
from nas.options import calibration, command_line, definition, terminal
from nas.options.calibration import CalibrationDefinition
from nas.options.limit import limit_of
from nas.options.scaling import FamilyDefinition
from nas.pages import (
    calibration_page,
    comparison_page,
    family_page,
    page,
    search_page,
    serve,
)
from nas.pages.page import View
from nas.runs import beside, journal, results, run_folder
from nas.runs.run_folder import RunFolder
from nas.scaling import grid
from search_space import files
from search_space.space import SearchSpace

_PROGRAM = "nas.report"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Show what a run has found, or compare runs."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")
    ] = ()
    """The run's folder, or several to compare."""
    serve: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show a page in the browser that follows the search, instead of writing files.
    It is served to this machine alone."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 8050
    """Where --serve listens; 0 for any free port."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("comparison.html")
    """The page to write when several runs are compared."""
    load_space: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Import the module of a run's own search space, which runs it."""


class Journals:
    """The journals of runs, read on as they grow."""

    def __init__(self, folders: Mapping[str, RunFolder]) -> None:
        """Reads the journals of the folders, by their names.

        Raises:
          ValueError: if one is damaged. One line.
        """
        self._folders = folders
        self._num_replaced = 0
        self.contents: dict[str, journal.Contents] = {}
        self.read_on()

    def read_on(self) -> str:
        """Reads what was added; returns how far, as a `serve.Source`'s version.

        A journal that took another's place is read anew.
        """
        for name, folder in self._folders.items():
            known = self.contents.get(name)
            run_folder.open_existing(folder.path)  # refuses what is now a link
            read = journal.read(folder.journal, known)
            if known is not None and read.header is not known.header:
                self._num_replaced += 1
            self.contents[name] = read
        sizes = [one.num_bytes for one in self.contents.values()]
        return "-".join(map(str, [self._num_replaced, *sizes]))


class Comparison:
    """Several runs, to be looked at again and again: a `serve.Source`."""

    def __init__(self, journals: Journals) -> None:
        """Of the runs of `journals`."""
        self._journals = journals
        self.version = journals.read_on

    def view(self) -> View:
        """See `serve.Source`."""
        return comparison_page.view(self._journals.contents)


class Search:
    """One search, to be looked at again and again: a `serve.Source`."""

    def __init__(
        self, folder: RunFolder, journals: Journals, space: SearchSpace
    ) -> None:
        """Of the only run of `journals`, in `folder`."""
        self._folder = folder
        self._journals = journals
        self._num_choices = space.num_choices
        self._header = self._contents.header
        run = definition.from_json(self._header.definition)
        self._page = search_page.SearchPage(run, space)

    def version(self) -> str:
        """See `serve.Source`."""
        log = self._folder.policy
        num_bytes = log.stat().st_size if log.exists() else 0
        return f"{self._journals.read_on()}-{num_bytes}"

    @property
    def _contents(self) -> journal.Contents:
        (contents,) = self._journals.contents.values()
        return contents

    def view(self) -> View:
        """See `serve.Source`.

        Raises:
          ValueError: if the journal is now that of another search.
        """
        if self._contents.header != self._header:
            raise ValueError(
                f"{self._folder.path} now holds another search than the one that was "
                "opened; start nas.report again to see it"
            )
        policy = policy_log.read(self._folder.policy, self._num_choices)
        return self._page.view(
            self._contents, policy, baselines=beside.read(self._folder), live=True
        )


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    2: the runs cannot be shown, as one line says. 1: files cannot be written.
    """
    try:
        parsed = command_line.parse(
            arguments, Arguments(), program=_PROGRAM, description=__doc__ or ""
        )
        if not parsed.runs:
            raise ValueError("name a run's folder, such as runs/20250101-120000")
        folders = _named(parsed.runs)
        journals = Journals(folders)
        if len(folders) > 1:
            return _compare(parsed, journals)
        (folder,) = folders.values()
        return _show(parsed, folder, journals)
    except (command_line.UsageError, ValueError, OSError) as error:
        return command_line.print_error(_PROGRAM, error, 2)


def _named(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """The folders by their names, or by their paths where names are the same."""
    names = [path.resolve().name for path in paths]
    folders = {
        name if names.count(name) == 1 else str(path): run_folder.open_existing(path)
        for name, path in zip(names, paths, strict=True)
    }
    if len(folders) < len(paths):
        raise ValueError("a run can be compared with others, not with itself")
    return folders


def _compare(parsed: Arguments, journals: Journals) -> int:
    source = Comparison(journals)
    source.view()  # complains before anything is served
    if parsed.serve:
        return _serve(source, parsed.port)
    files.write_whole(parsed.output, page.interactive(source.view()))
    terminal.say(f"{parsed.output}")
    return 0


def _show(parsed: Arguments, folder: RunFolder, journals: Journals) -> int:
    (contents,) = journals.contents.values()
    others = {grid.KIND: _write_family, plan.KIND: _write_calibration}
    if (write := others.get(contents.header.kind)) is not None:
        if parsed.serve:
            raise ValueError(
                f"--serve follows searches for an architecture, and {folder.path} is "
                f"a {contents.header.kind}; drop the flag to write its page"
            )
        return write(folder, contents)
    run = definition.from_json(contents.header.definition)
    if ":" in run.search.space and not parsed.load_space:
        raise ValueError(
            f"the run's space {run.search.space} is a module, and importing it "
            "runs it; add --load-space if you trust it"
        )
    space = definition.build_space(run)
    if parsed.serve:
        return _serve(Search(folder, journals, space), parsed.port)
    results.write(folder, contents, space, limit_of(run))
    search_page.write(folder, contents, run, space)
    terminal.say(f"{folder.report}")
    return 0


def _serve(source: serve.Source, port: int) -> int:
    source.view()
    with serve.listen(port) as listening:
        port = listening.getsockname()[1]
        sys.stdout.write(f"http://127.0.0.1:{port}/  (Ctrl-C ends)\n")
        sys.stdout.flush()
        serve.run(source, listening)
    return 0


def _write_family(folder: RunFolder, contents: journal.Contents) -> int:
    searched = grid.plan(definition.read(contents.header.definition, FamilyDefinition))
    if family_page.write_grid(folder, searched, contents) is None:
        raise ValueError(
            f"{folder.path} has no measured point to make a family of; go on with "
            f"python -m nas.scale --resume {folder.path}"
        )
    terminal.say(f"{folder.family_page}")
    return 0


def _write_calibration(folder: RunFolder, contents: journal.Contents) -> int:
    run = definition.read(contents.header.definition, CalibrationDefinition)
    calibration.check(run.calibration, run.evaluation)
    if calibration_page.write(folder, run, contents) is None:
        raise ValueError(
            f"{folder.path} has too few trainings to judge by; go on with "
            f"python -m nas.calibrate --resume {folder.path}"
        )
    terminal.say(f"{folder.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
