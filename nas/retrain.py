"""Trains the best of a search at length, beside published networks of the same cost.

    python -m nas.retrain runs/20250101-120000 --beside mobilenet-v2,efficientnet-b0
    python -m nas.retrain runs/20250101-120000 --top 5 --seeds 5 --epochs 50
    python -m nas.retrain runs/imagenet --recipe efficientnet --top 15 --part 2/4

The best by reward, those confirmed first, and the most accurate within the target, from
several seeds each; and the networks named beside them, scaled to the multiply-adds of
the first. All with one recipe, on the search's data. Every training is a run of
nas.train in a folder of its own under RUN/retrained, so what is finished is kept: the
same command goes on after Ctrl-C, a crash or a power cut, and so does one with more
--seeds, --top or --beside. Each training measures the test split once, at its end.

When all are finished, retrained.json and retrained.html have accuracy over seeds,
multiply-adds, parameters and measured latency, and the screen has the table.
"""

from nas.execution.interrupts import Departure

if __name__ == "__main__":
    Departure(
        "nas.retrain: interrupted"
    ).begin()  # what follows takes seconds to import

import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from pydantic import JsonValue, TypeAdapter

from nas import train
from nas.evaluation import run_data
from nas.monitoring.display import format_seconds
from nas.monitoring.pace import Pace
from nas.options import command_line, definition, terminal
from nas.options.definition import SURROGATE, Definition
from nas.options.limit import limit_of
from nas.options.quantity import format_flops, parse_part
from nas.pages import retrained_page
from nas.runs import journal, provenance, run_folder
from nas.scaling import candidates
from nas.training import models, retrained
from nas.training import run as training
from nas.training.retrained import Candidate, Retrained
from search_space import cost, files, references
from search_space.space import SearchSpace
from trainers import recipes
from trainers.data import catalog
from trainers.deploy import latency
from trainers.recipes import TrainingConfig

_PROGRAM = "nas.retrain"
_AGAIN = "nas.retrain: interrupted; what is trained is kept: run the same command again"
_MOST = 1_000  # of networks, and of seeds
_NAME, _COUNT = tyro.conf.arg(metavar="NAME"), tyro.conf.arg(metavar="N")
_DIR = tyro.conf.arg(metavar="DIR")
_TRAIN_OPTIONS = TypeAdapter(train.Options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the best of a search at length, beside others."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = (
        None
    )
    """The folder of the search."""
    top: Annotated[int, _COUNT] = 1
    """How many of the search's networks, by reward; those confirmed come first."""
    at_target: bool = True
    """And the most accurate within the target, where it is not among them."""
    beside: Annotated[str, tyro.conf.arg(metavar="A,B")] = ""
    """Networks to train beside them, by name or JSON file, such as
    mobilenet-v2,mnasnet-a1,efficientnet-b0. Each is scaled to the multiply-adds of the
    search's first, as trained: depth and width, and the resolution where networks are
    trained at their own."""
    seeds: Annotated[int, _COUNT] = 3
    """Trainings of each network, with seeds from 0."""
    output: Annotated[Path | None, _DIR] = None
    """Folder for the trainings; by default RUN/retrained. Every machine that takes a
    part needs the same."""
    part: Annotated[str, tyro.conf.arg(metavar="K/N")] = "1/1"
    """This machine takes the K-th of N parts of the trainings. The last to finish
    writes the results."""
    devices: Annotated[int | None, _COUNT] = None
    """Local devices to split each batch over; by default all."""
    load_space: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Import the module of a run's own search space, which runs it."""
    recipe: recipes.RecipeName = "short"
    """What the options below default to, as for nas.train."""
    dataset: Annotated[str | None, _NAME] = None
    """Another data set than the search's."""
    data_dir: Annotated[str | None, _DIR] = None
    """Where the data set's files are; by default where the search found them."""
    validation: Annotated[int | None, _COUNT] = None
    """Training images held out to choose the best checkpoint; by default as many as
    the search held out."""
    save_every: Annotated[int, _COUNT] = 500
    """Steps between checkpoints; there is one after every epoch as well."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = recipes.SHORT


class Job(NamedTuple):
    """A training: of which network, from which seed, in which folder."""

    candidate: Candidate
    seed: int
    folder: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained, in this order; `mine` is this machine's part of it."""

    candidates: Sequence[Candidate]
    jobs: Sequence[Job]
    mine: Sequence[Job]
    options: train.Options
    output: Path
    devices: int | None

    def record(self) -> dict[str, JsonValue]:
        """The options that all trainings share, by name."""
        found = _TRAIN_OPTIONS.dump_python(self.options, mode="json")
        del found["seed"]
        return found | found.pop("training")


def parse(arguments: Sequence[str] | None) -> Arguments:
    """Parses the command line over the defaults of the recipe that it names.

    Raises:
      UsageError: if a flag's value cannot be used.
    """
    parse_over = functools.partial(
        command_line.parse, arguments, program=_PROGRAM, description=__doc__ or ""
    )
    recipe = recipes.RECIPES[parse_over(Arguments()).recipe]
    return parse_over(Arguments(training=recipe))


def prepare(parsed: Arguments) -> Plan:
    """Reads the search and checks everything; writes nothing.

    Raises:
      ValueError: if something does not fit. One line.
      OSError: if a file cannot be read.
    """
    if parsed.run is None:
        raise ValueError("name a search's folder, such as runs/20250101-120000")
    for flag, number in (("--top", parsed.top), ("--seeds", parsed.seeds)):
        if not 1 <= number <= _MOST:
            raise ValueError(f"{flag} must be from 1 to {_MOST}, got {number}")
    this, parts = parse_part("--part", parsed.part)
    contents = _read(parsed.run)
    searched = definition.from_json(contents.header.definition)
    options = _options(parsed, searched)
    limit = limit_of(searched) if parsed.at_target else None
    front = contents.header.front
    found = candidates.chosen(contents.standings, parsed.top, front, limit)
    if not found:
        raise ValueError(
            f"a search must have measured networks to retrain, and {parsed.run} has"
            " none"
        )
    space = _space(parsed, searched)
    dataset = catalog.load(
        options.dataset,
        seed=0,
        validation=options.validation,
        data_dir=options.data_dir,
    )
    networks = candidates.networks(
        found,
        [name.strip() for name in parsed.beside.split(",") if name.strip()],
        space=space,
        dataset=dataset,
        asked=parsed.training.resolution,
    )
    output = parsed.output or parsed.run / "retrained"
    if output.is_dir():
        run_folder.check_contents(output)
    jobs = [
        Job(candidate, seed, output / candidate.label / f"seed-{seed}")
        for seed in range(parsed.seeds)
        for candidate in networks
    ]
    return Plan(
        candidates=networks,
        jobs=jobs,
        mine=jobs[this::parts],
        options=options,
        output=output,
        devices=parsed.devices,
    )


def _read(path: Path) -> journal.Contents:
    folder = run_folder.open_existing(path)
    run_folder.check_contents(folder.path)
    contents = journal.read(folder.journal)
    if contents.header.kind != "search":
        raise ValueError(
            f"a run of nas.search is retrained, and {path} is of another kind,"
            f" {contents.header.kind!r}; train an architecture file with nas.train"
        )
    return contents


def _options(parsed: Arguments, searched: Definition) -> train.Options:
    """Those of nas.train, for every network and seed.

    Raises:
      ValueError: if the data set is not known, or loading it would run code.
    """
    evaluation, name = searched.evaluation, parsed.dataset
    if name is None:
        if evaluation.evaluator == SURROGATE:
            raise ValueError(
                "the search predicted its accuracies and has no data set; name one"
                " with --dataset"
            )
        name = evaluation.dataset
        if references.is_reference(name):
            raise ValueError(
                f"the search's data set {name} is a module, and importing it runs it;"
                f" add --dataset {name} if you trust it"
            )
    is_own = parsed.dataset in (None, evaluation.dataset)
    data_dir, validation = parsed.data_dir, parsed.validation
    if is_own:
        data_dir = data_dir or evaluation.data_dir
        validation = evaluation.validation if validation is None else validation
    return train.Options(
        recipe=parsed.recipe,
        dataset=name,
        data_dir=run_data.absolute(data_dir),
        validation=validation,
        save_every=parsed.save_every,
        training=parsed.training,
    )


def _space(parsed: Arguments, searched: Definition) -> SearchSpace:
    if references.is_reference(searched.search.space) and not parsed.load_space:
        raise ValueError(
            f"the run's space {searched.search.space} is a module, and importing it"
            " runs it; add --load-space if you trust it"
        )
    return definition.build_space(searched)


def _train(job: Job, plan: Plan) -> int:
    """Trains, or goes on with it; returns the exit status of nas.train."""
    if (job.folder / train.OPTIONS).is_file():
        devices = [] if plan.devices is None else ["--devices", str(plan.devices)]
        parsed = train.parse(["--resume", str(job.folder), *devices])
    else:
        for name in (train.ARCHITECTURE, train.DATA):  # of one killed while it began
            (job.folder / name).unlink(missing_ok=True)
        parsed = train.Arguments(
            model=str(job.folder.parent / retrained.ARCHITECTURE),
            output=job.folder,
            devices=plan.devices,
            options=dataclasses.replace(plan.options, seed=job.seed),
        )
    return train.carry_out(parsed, last_words=lambda _: None)


def _train_all(plan: Plan, say: training.Say) -> int:
    """Trains what is left of this machine's part; returns the worst exit status.

    Raises:
      ValueError: if the folder of a training holds something else.
      OSError: if a file cannot be read or written.
    """
    left = [job for job in plan.mine if training.finished(job.folder) is None]
    done = len(plan.mine) - len(left)
    say("Trainings", f"{len(left)} to do, {done} done, in {plan.output}")
    pace = Pace(done=0, num_steps=len(left), clock=time.perf_counter)
    worst = 0
    for number, job in enumerate(left, 1):
        what = f"{job.candidate.label}, seed {job.seed}"
        say("Training", f"{number} of {len(left)}: {what}")
        if (status := _train(job, plan)) not in (0, 1):
            return status
        result = training.finished(job.folder)
        worst = max(worst, status)
        outcome = "stopped, as the line above says" if result is None else _told(result)
        rest = format_seconds(pace.seconds_left(number))
        say("Trained", f"{what}: {outcome}; {len(left) - number} left, about {rest}")
    return worst


def _told(result: training.Result) -> str:
    split, metric = retrained.deciding([result])
    return f"{split} accuracy {getattr(result, split)[metric]:.2%}"


def _conclude(plan: Plan, say: training.Say) -> None:
    """Writes and shows what came out, once every training is finished.

    Raises:
      ValueError: if the trainings were measured on nothing.
      OSError: if a file cannot be read or written.
    """
    finished = {
        (job.candidate.label, job.seed): training.finished(job.folder)
        for job in plan.jobs
    }
    results = {key: result for key, result in finished.items() if result is not None}
    if number := len(finished) - len(results):
        say(
            "Unfinished",
            f"{number} of {len(finished)} trainings; the results come with the last",
        )
        return
    networks, split, metric = retrained.networks(plan.candidates, results)
    whole = retrained.read(plan.output)
    if whole is None or retrained.unmeasured(whole) != networks:
        say("Latency", f"of one image at deployment, on {latency.device()}")
        whole = Retrained(
            accuracy=split,
            metric=metric,
            networks=retrained.timed(networks, plan.candidates),
            verdicts=retrained.verdicts(networks),
            options=plan.record(),
            device=latency.device(),
            provenance=provenance.of_result(),
        )
        page = retrained_page.render(whole)
        files.write_whole(plan.output / retrained.PAGE, page)
        files.write_whole(plan.output / retrained.FILE, retrained.dumps(whole))
    _show(whole, say)
    say("Written", f"{retrained.FILE}, {retrained.PAGE} in {plan.output}")


def _show(whole: Retrained, say: training.Say) -> None:
    rows = [retrained_page.COLUMNS, *retrained_page.rows(whole)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = (
            f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)
        )
        say(f"{name:<{widths[0]}}", "  ".join(padded))
    for one in whole.networks:
        say("Network", f"{one.name}: {one.note}")
    for verdict in whole.verdicts:
        say("Compared", verdict)


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    0: this part is trained. 2: the command cannot be carried out as it stands. 1: a
    training had to stop, as diverged, or results cannot be written. 130, 143:
    interrupted; the same command goes on.
    """
    console = terminal.screen()

    def say(heading: str, text: str) -> None:
        shown = terminal.printable(f"{heading:<11} {text}")
        console.print(shown, markup=False, highlight=False)

    with Departure(_AGAIN):
        try:
            plan = prepare(parse(arguments))
            retrained.claim(plan.output, plan.candidates, plan.record())
            for one in plan.candidates:
                say("Network", _described(one))
            status = _train_all(plan, say)
        except (command_line.UsageError, ValueError, OSError) as error:
            return models.print_error(_PROGRAM, error)
        if status not in (0, 1):
            return status
        try:
            _conclude(plan, say)
        except (ValueError, OSError) as error:
            return models.print_error(_PROGRAM, error, 1)
    return status


def _described(one: Candidate) -> str:
    trained, own = (
        f"{format_flops(cost.num_macs(spec))} at {spec.resolution} pixels"
        for spec in (one.trained, one.spec)
    )
    return f"{one.label}: {trained}, as trained; {own}, at deployment; {one.note}"


if __name__ == "__main__":
    sys.exit(main())
