"""Trains one network at length, such as the best of a search.

    python -m nas.train runs/20250101-120000/best.json --dataset fashion_mnist
    python -m nas.train efficientnet-b0 --recipe efficientnet --dataset imagenet2012
    python -m nas.train efficientnetv2-b0 --progressive --dataset ...
    python -m nas.train efficientnet-lite0 --init weights.pth --head-only --dataset ...
    python -m nas.train --resume runs/20250101-120000

The folder gets checkpoints (`last`, `best`), the losses, TensorBoard's files, and at
the end `model/`, which nas.export and nas.predict take, and result.json with the
accuracy on the test split, of the checkpoint that was best on the validation split.
"""

from nas.execution.interrupts import Departure

if __name__ == "__main__":
    Departure("nas.train: interrupted").begin()  # what follows takes seconds to import

import contextlib
import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from pydantic import TypeAdapter, ValidationError

from nas.evaluation import run_data
from nas.options import command_line, terminal
from nas.runs import provenance, run_folder
from nas.runs.run_folder import RunFolder
from nas.training import fitting, initial, models
from nas.training import run as training
from search_space import codec, files
from search_space.spec import ArchSpec, explain
from trainers import loop, recipes
from trainers.data import catalog, fingerprint
from trainers.data.dataset import Dataset
from trainers.data.fingerprint import Fingerprint
from trainers.recipes import TrainingConfig
from trainers.runtime import compilation

ARCHITECTURE, DATA, OPTIONS = "architecture.json", "data.json", "training.json"
LastWords = Callable[[str], None]
_MAX_BYTES = 2**20
_NAME, _COUNT = tyro.conf.arg(metavar="NAME"), tyro.conf.arg(metavar="N")
_FILE, _DIR = tyro.conf.arg(metavar="FILE"), tyro.conf.arg(metavar="DIR")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines a run; kept in its folder."""

    recipe: recipes.RecipeName = "short"
    """What the options below default to: for small data, EfficientNet's own, or
    EfficientNetV2's for S, M and L, which grows images and regularization in stages. By
    default images are trained at the architecture's resolution, and with the recipe
    short at their own size where they all have one, from 32 pixels up to that."""
    dataset: Annotated[str, _NAME] = "patterns"
    """A data set, named as for nas.search."""
    data_dir: Annotated[str | None, _DIR] = None
    """Where the data set's files are, if not in their usual place."""
    validation: Annotated[int | None, _COUNT] = None
    """Training images held out to choose the best checkpoint; by default a share."""
    init: Annotated[str | None, _FILE] = None
    """Start from these weights, with a new head where the classes differ: a model's
    or a run's folder, or a safetensors or PyTorch file with timm's names. Weights of
    timm's models without tf_ in their name need MODEL with -pytorch behind it."""
    init_stem: initial.StemRule = "exact"
    """sum: let weights for colour read grey pictures, by the sum of their first kernel
    over the channels, or weights for grey read colour."""
    head_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train the classifier alone."""
    seed: Annotated[int, _COUNT] = 0
    """Of the weights, the validation split, the order of the data, augmentation."""
    final: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train on training and validation images together. Nothing is left to choose the
    best weights by, so the last are kept; the test split is measured once, at the end.
    """
    save_every: Annotated[int, _COUNT] = 500
    """Steps between checkpoints; there is one after every epoch as well."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = recipes.SHORT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train one network at length."""

    model: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")
    ] = None
    """An architecture: a JSON file, or a name such as efficientnet-b0 or, padded and
    normalized as PyTorch's networks are, efficientnet-b0-pytorch."""
    output: Annotated[Path | None, _DIR] = None
    """A new or empty folder for the run; by default one under runs/."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with the run in this folder, with the options it was started with."""
    devices: Annotated[int | None, _COUNT] = None
    """Local devices to split each batch over; by default all."""
    options: Annotated[Options, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Options
    )


_JSON = TypeAdapter(Options)
_DATA = TypeAdapter(Fingerprint)


def parse(arguments: Sequence[str] | None) -> Arguments:
    """Parses the command line over the defaults of the recipe that it names.

    Raises:
      ValueError: if a run to resume is not one, or options contradict it.
    """
    parsed = _cli(arguments, Arguments())
    if parsed.resume is not None:
        recorded = _recorded(parsed.resume)
        parsed = _cli(arguments, Arguments(options=recorded))
        if parsed.model or parsed.output or parsed.options != recorded:
            raise ValueError(
                "a resumed run keeps what it was started with: give --resume alone,"
                " with --devices if need be, or start a new run"
            )
        return parsed
    if parsed.model is None:
        raise ValueError(
            "an architecture is required: a JSON file such as a search's best.json, or"
            " a name such as efficientnet-b0; or --resume with a run's folder"
        )
    recipe = recipes.RECIPES[parsed.options.recipe]
    return _cli(arguments, Arguments(options=Options(training=recipe)))


def _cli(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    return command_line.parse(
        arguments, defaults, program="nas.train", description=__doc__ or ""
    )


def _recorded(folder: Path) -> Options:
    path = folder / OPTIONS
    if not path.is_file():
        raise ValueError(
            f"a training run's folder holds {OPTIONS}, and {folder} does not; name"
            " the folder that nas.train printed"
        )
    run_folder.check_contents(folder)
    try:
        return _JSON.validate_json(
            _converted(files.read_bounded(path, _MAX_BYTES)),
            strict=True,
            extra="forbid",
        )
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def _converted(text: bytes) -> bytes:
    """Options as this version has them.

    null was once the architecture's resolution, and batch statistics were the running
    ones.
    """
    try:
        record = json.loads(text)
        record["training"].setdefault("norm_batches", 0)
        if record["training"]["resolution"] is None:
            record["training"]["resolution"] = "architecture"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text  # is refused where it is read
    return json.dumps(record).encode()


def _plan(
    parsed: Arguments,
    stack: contextlib.ExitStack,
    say: training.Say,
    last_words: LastWords,
) -> training.Plan:
    """Checks everything, then takes the run's folder.

    Raises:
      ValueError: if something does not fit. One line.
      OSError: if a file cannot be read or written.
    """
    options = parsed.options
    _check(options)
    say("Loading", options.dataset)
    dataset = catalog.load(
        options.dataset,
        seed=options.seed,
        validation=options.validation,
        data_dir=options.data_dir,
    )
    test, no_test = fitting.test_split(options.dataset, options.data_dir)
    found = fingerprint.of(dataset, test)
    dataset = dataclasses.replace(dataset, name=found.source)  # as a resumed run has it
    spec, why, note = _architecture(parsed, dataset, found)
    network, report = initial.network(
        spec, options.init, seed=options.seed, stem=options.init_stem
    )
    options.training.phases(len(dataset.train), spec)  # a ValueError here is in time
    folder = RunFolder(parsed.resume) if parsed.resume else None
    folder = folder or run_folder.create(parsed.output)
    stack.enter_context(folder.locked())
    options = _located(options, found)
    if parsed.resume is None:
        _write_options(folder.path, spec, found, options)
    last_words(go_on_with(folder.path))
    provenance.write_config(
        folder,
        command=provenance.command_line(),
        options=_JSON.dump_python(options, mode="json"),
        seed=options.seed,
    )
    shown = dataclasses.asdict(options.training)
    lines = {
        "Data set": dataset.description,
        "Unchecked": note,
        "No test": no_test,
        "Final": _FINAL if options.final else None,
        "Network": f"{spec.name}; {report}",
        "Resolution": f"{spec.resolution} pixels: {why}",
        "Recipe": ", ".join(f"{name} {value}" for name, value in shown.items()),
        "Warm-up": fitting.about_warmup(options.training),
        "Run folder": str(folder.path),
    }
    for heading, text in lines.items():
        if text is not None:
            say(heading, text)
    return training.Plan(
        folder=folder.path,
        spec=spec,
        network=network,
        dataset=fitting.joined(dataset) if options.final else dataset,
        test=test,
        config=options.training,
        seed=options.seed,
        devices=parsed.devices,
        head_only=options.head_only,
        save_every=options.save_every,
        final=options.final,
    )


_FINAL = (
    "training and validation images are trained on together; the last weights are kept,"
    " because nothing is left to choose the best by"
)


def _check(options: Options) -> None:
    if options.save_every < 1:
        raise ValueError(f"--save-every must be at least 1, got {options.save_every}")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2^32), got {options.seed}")
    if options.head_only and options.init is None:
        raise ValueError("--head-only needs trained weights; give them with --init")
    if options.init_stem != "exact" and options.init is None:
        raise ValueError("--init-stem is for given weights; give them with --init")
    if options.final and options.validation is not None:
        raise ValueError(
            f"--final holds nothing out, got --validation {options.validation}; drop"
            " one or the other"
        )


def _architecture(
    parsed: Arguments, dataset: Dataset, found: Fingerprint
) -> tuple[ArchSpec, str, str | None]:
    """Returns what is trained, why at its resolution, and what cannot be checked.

    Raises:
      ValueError: if it does not fit the data, or the run was started with others.
      OSError: if a file cannot be read.
    """
    asked = parsed.options.training.resolution
    if parsed.resume is None:
        assert parsed.model is not None  # `parse` saw to it
        given = models.architecture(parsed.model)
        side, why = fitting.resolution_of(given, dataset, asked)
        return fitting.as_trained(given, dataset, side), why, None
    spec = codec.load_file(parsed.resume / ARCHITECTURE)
    note = run_data.check(_recorded_data(parsed.resume), found)
    if (spec.num_classes, spec.in_channels) != (dataset.num_classes, dataset.channels):
        raise ValueError(
            f"a run goes on with the data that it was started with, {spec.num_classes}"
            f" classes and {spec.in_channels} channels, got {dataset.num_classes} and"
            f" {dataset.channels}; put the data back as they were, or start a new run"
        )
    return spec, "as the run was started", note


def _recorded_data(folder: Path) -> Fingerprint | None:
    path = folder / DATA
    try:
        return _DATA.validate_json(
            files.read_bounded(path, _MAX_BYTES), strict=True, extra="forbid"
        )
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def _located(options: Options, found: Fingerprint) -> Options:
    """Returns the options with absolute paths, which hold wherever it is resumed."""
    return dataclasses.replace(
        options,
        dataset=found.source,
        data_dir=run_data.absolute(options.data_dir),
        init=run_data.absolute(options.init),
    )


def _write_options(
    folder: Path, spec: ArchSpec, found: Fingerprint, options: Options
) -> None:
    """Makes the folder a run: it is one once its options are there, which come last."""
    texts = {
        ARCHITECTURE: codec.dumps(spec),
        DATA: _DATA.dump_json(found, indent=2).decode() + "\n",
        OPTIONS: _JSON.dump_json(options, indent=2).decode() + "\n",
    }
    for name, text in texts.items():
        files.write_whole(folder / name, text)


def go_on_with(folder: Path) -> str:
    """The line that says how to go on."""
    return f"{'Go on with':<11} python -m nas.train --resume {shlex.quote(str(folder))}"


def _say_result(result: training.Result, say: training.Say) -> None:
    for split, found in (("Validation", result.validation), ("Test", result.test)):
        for name, value in (found or {}).items():
            say(split, f"{name} {value:.2%}")


@command_line.command("nas.train")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    0: trained. 2: the command cannot be carried out as it stands. 1: the training had
    to stop. 130, 143: interrupted; --resume goes on.
    """
    with Departure("nas.train: interrupted") as departure:
        try:
            parsed = parse(arguments)
        except (command_line.UsageError, ValueError, OSError) as error:
            return models.print_error("nas.train", error)
        return carry_out(parsed, functools.partial(setattr, departure, "last_words"))


def carry_out(parsed: Arguments, last_words: LastWords) -> int:
    """Does what was parsed, as `main`; returns the exit status.

    `last_words` is told the line to end with if the process is interrupted.
    """
    console = terminal.screen()

    def say(heading: str, text: str) -> None:
        shown = terminal.printable(f"{heading:<11} {text}")
        console.print(shown, markup=False, highlight=False)

    with contextlib.ExitStack() as stack:
        try:
            if parsed.resume:
                last_words(go_on_with(parsed.resume))
            if parsed.resume and (result := training.finished(parsed.resume)):
                say("Finished", f"{parsed.resume} is trained; nothing is changed")
                _say_result(result, say)
                return 0
            cache = compilation.default_cache_folder()
            if not compilation.use_cache(cache):
                say("Cache", f"not used: {compilation.refusal(cache)}")
            plan = _plan(parsed, stack, say, last_words)
            run = training.Run(plan, say)
        except (command_line.UsageError, ValueError, OSError) as error:
            return models.print_error("nas.train", error)
        say("Devices", f"{parsed.devices or jax.local_device_count()}")
        try:
            result = run.train()
        except (loop.DivergedError, ValueError, OSError) as error:
            return models.print_error("nas.train", error, 1)
    _say_result(result, say)
    say("Written", f"model/, result.json in {plan.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
