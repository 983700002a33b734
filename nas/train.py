"""Trains one network at length, such as the best of a search.

    python -m nas.train runs/20250101-120000/best.json --dataset fashion_mnist
    python -m nas.train efficientnet-b0 --recipe efficientnet --dataset imagenet2012
    python -m nas.train efficientnet-lite0 --init weights.pth --head-only --dataset ...
    python -m nas.train --resume runs/20250101-120000

The folder gets checkpoints (`last`, `best`), the losses, TensorBoard's files, and at
the end `model/`, which nas.export and nas.predict take, and result.json with the
accuracy on the test split, of the checkpoint that was best on the validation split.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from nas import initial, models, provenance, run_folder, training
from nas.interrupts import Interrupted, Interrupts
from nas.run_folder import RunFolder
from search_space import codec, files
from search_space.spec import ArchSpec, explain
from trainers import compilation, loop, recipes
from trainers.data import catalog
from trainers.data.dataset import Dataset, Examples
from trainers.recipes import TrainingConfig

OPTIONS = "training.json"
_MAX_BYTES = 2**20
_NAME, _COUNT = tyro.conf.arg(metavar="NAME"), tyro.conf.arg(metavar="N")
_FILE, _DIR = tyro.conf.arg(metavar="FILE"), tyro.conf.arg(metavar="DIR")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines a run; kept in its folder."""

    recipe: Literal["short", "efficientnet"] = "short"
    """What the options below default to: for small data, or EfficientNet's own."""
    dataset: Annotated[str, _NAME] = "digits"
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
    return tyro.cli(
        Arguments,
        args=arguments,
        default=defaults,
        prog="python -m nas.train",
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _recorded(folder: Path) -> Options:
    path = folder / OPTIONS
    if not path.is_file():
        raise ValueError(
            f"a training run's folder holds {OPTIONS}, and {folder} does not; name"
            " the folder that nas.train printed"
        )
    try:
        return _JSON.validate_json(
            files.read_bounded(path, _MAX_BYTES), strict=True, extra="forbid"
        )
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def as_trained(spec: ArchSpec, dataset: Dataset, resolution: int | None) -> ArchSpec:
    """Returns `spec` for the data set's images and classes, at `resolution` if given.

    Raises:
      ValueError: if it strides further than the resolution reaches. One line.
    """
    try:
        return dataclasses.replace(
            spec,
            resolution=resolution or spec.resolution,
            in_channels=dataset.channels,
            num_classes=dataset.num_classes,
        )
    except ValidationError as error:
        raise ValueError(f"--resolution: {explain(error)}") from None


def _plan(
    parsed: Arguments, stack: contextlib.ExitStack, say: training.Say
) -> training.Plan:
    """Checks everything, then takes the run's folder.

    Raises:
      ValueError: if something does not fit. One line.
      OSError: if a file cannot be read or written.
    """
    options = parsed.options
    if options.save_every < 1:
        raise ValueError(f"--save-every must be at least 1, got {options.save_every}")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2^32), got {options.seed}")
    if options.head_only and options.init is None:
        raise ValueError("--head-only needs trained weights; give them with --init")
    if options.init_stem != "exact" and options.init is None:
        raise ValueError("--init-stem is for given weights; give them with --init")
    dataset = catalog.load(
        options.dataset,
        seed=options.seed,
        validation=options.validation,
        data_dir=options.data_dir,
    )
    if parsed.resume is not None:
        spec = codec.load_file(parsed.resume / "architecture.json")
    else:
        assert parsed.model is not None  # `parse` saw to it
        spec = as_trained(
            models.architecture(parsed.model), dataset, options.training.resolution
        )
    network, report = initial.network(
        spec, options.init, seed=options.seed, stem=options.init_stem
    )
    folder = RunFolder(parsed.resume) if parsed.resume else None
    folder = folder or run_folder.create(parsed.output)
    stack.enter_context(folder.locked())
    if parsed.resume is None:
        (folder.path / "architecture.json").write_text(codec.dumps(spec))
        text = _JSON.dump_json(options, indent=2).decode()
        run_folder.write_whole(folder.path / OPTIONS, text + "\n")
    provenance.write_config(
        folder,
        command=provenance.command_line(),
        options=_JSON.dump_python(options, mode="json"),
        seed=options.seed,
    )
    say("Data set", dataset.description)
    say("Network", f"{spec.name} at {spec.resolution} pixels; {report}")
    shown = dataclasses.asdict(options.training)
    say("Recipe", ", ".join(f"{name} {value}" for name, value in shown.items()))
    say("Run folder", str(folder.path))
    return training.Plan(
        folder=folder.path,
        spec=spec,
        network=network,
        dataset=dataset,
        test=_test(options, say),
        config=options.training,
        seed=options.seed,
        devices=parsed.devices,
        head_only=options.head_only,
        save_every=options.save_every,
    )


def _test(options: Options, say: training.Say) -> Examples | None:
    try:
        return catalog.load_test(options.dataset, data_dir=options.data_dir)
    except ValueError as error:
        say("No test", str(error))
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    0: trained. 2: the command cannot be carried out as it stands. 1: the training had
    to stop. 130, 143: interrupted; --resume goes on.
    """
    console = Console(soft_wrap=True)

    def say(heading: str, text: str) -> None:
        console.print(f"{heading:<11} {text}", markup=False, highlight=False)

    interrupts = Interrupts()
    interrupts.install()
    with contextlib.ExitStack() as stack:
        try:
            parsed = parse(arguments)
            compilation.use_cache(compilation.default_cache_folder())
            plan = _plan(parsed, stack, say)
            run = training.Run(plan, say)
        except Interrupted as interrupt:
            return interrupt.exit_status
        except (ValueError, OSError) as error:
            return models.complain("nas.train", error)
        say("Devices", f"{parsed.devices or jax.local_device_count()}")
        try:
            result = run.train()
        except Interrupted as interrupt:
            say("Go on with", f"python -m nas.train --resume {plan.folder}")
            return interrupt.exit_status
        except (loop.DivergedError, ValueError, OSError) as error:
            return models.complain("nas.train", error, 1)
    for split in ("validation", "test"):
        for name, value in result.get(split, {}).items():
            say(split.capitalize(), f"{name} {value:.2%}")
    say("Written", f"model/, result.json in {plan.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
