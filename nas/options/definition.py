"""What defines a search: options that hold from its first child to its last.

They are flags on the command line and the header of the journal. How long to search,
where to write and which workers to use are not among them: those may change when a
search is resumed.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import JsonValue, TypeAdapter, ValidationError

from nas.options.command_line import UsageError, quantity
from nas.options.costs import parse_cost
from nas.options.quantity import (
    format_flops,
    format_metric,
    parse_flops,
    parse_milliseconds,
)
from nas.study import reward
from nas.study.metrics import ACCURACY, LATENCY_MS, NUM_MACS, Metric, by_name
from nas.study.reward import Reward
from search_space import references, spaces
from search_space.decisions import parse_restrictions
from search_space.space import SearchSpace
from trainers.child import ChildConfig

# How values are called in --help.
_NAME = tyro.conf.arg(metavar="NAME")
_COUNT = tyro.conf.arg(metavar="N")
_NUMBER = tyro.conf.arg(metavar="X")

_T = TypeVar("_T")

FLOPS = "flops"
REWARDS = ("soft", "hard", "absolute")
SURROGATE = "imagenet-surrogate"


Flops = Annotated[int, quantity("--target-flops", "FLOPS", parse_flops, format_flops)]
Milliseconds = Annotated[
    float | None,
    quantity(
        "--target-latency", "TIME", parse_milliseconds, lambda value: f"{value:g}ms"
    ),
]


def _parse_steps(arguments: list[str]) -> tuple[int, ...]:
    text = arguments[0].strip()
    try:
        return tuple(map(int, text.split(","))) if text != "none" else ()
    except ValueError:
        raise UsageError(
            "--fidelities must be whole numbers of steps between commas, got "
            f"{text[:40]!r}; write 60,180,540"
        ) from None


_Steps = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="STEPS,STEPS...",
        instance_from_str=_parse_steps,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value)) or "none"],
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched, and by what."""

    target_flops: Flops = 400_000_000
    """Multiply-adds, at the deployment resolution: 400M, 0.4B or 4e8. With the soft
    reward a unit and not a limit: a search may end far from it, and at_target.json is
    the most accurate network within it. --reward hard or absolute aim at it."""
    space: Annotated[str, _NAME] = "mbconv"
    """mbconv, mnasnet, accel-nasbench, efficientnetv2, or a space of your own."""
    restrict: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="DECISION=CHOICES"),
    ] = ()
    """Keep only these choices of a decision, such as stage3.kernel=3,5. Repeatable."""
    controller: Annotated[str, _NAME] = "dyna"
    """What proposes architectures: dyna, ppo, reinforce, evolution, random, or
    module:object of your own."""
    rewards_per_update: Annotated[int, _COUNT] = 5
    """The controller learns whenever this many rewards have arrived."""
    fidelities: _Steps = ()
    """Train children in rungs: all to the first number of steps, the best third of each
    rung on from its weights to the next (ASHA): 60,180,540."""
    repeats: Annotated[int, _COUNT] = 1
    """Trainings of each child, from seeds of their own: the reward is of their mean."""
    seed: Annotated[int, _COUNT] = 0
    """Seed of the controller, the children and the validation split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """How accuracy and multiply-adds make one number."""

    reward: Annotated[
        str,
        tyro.conf.arg(
            metavar="soft|hard|absolute|MODULE:OBJECT",
            help="soft and hard: accuracy * (FLOPS / target)^exponent; the exponent "
            "below and above the target is -0.07 and -0.07 (soft), or 0 and -1 "
            "(hard). absolute: accuracy + beta * |FLOPS / target - 1|. Your own: a "
            "function of the metrics by name.",
        ),
    ] = "soft"
    exponent_below: Annotated[float | None, _NUMBER] = None
    """Another exponent for children below the target."""
    exponent_above: Annotated[float | None, _NUMBER] = None
    """Another exponent for children above the target."""
    beta: Annotated[float | None, _NUMBER] = None
    """Another beta for the absolute reward than -0.10."""
    objective: Annotated[str, _NAME] = FLOPS
    """What the reward weighs besides accuracy: flops, or a predicted speed such as
    throughput-a100 or latency-zcu102 (needs --evaluator imagenet-surrogate)."""
    target: Annotated[float | None, _NUMBER] = None
    """What to aim at with another --objective than flops: images a second, or ms."""
    cost: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="METRIC=TARGET^W"),
    ] = ()
    """Weigh another metric as well, such as num_params=5M^-0.05. Repeatable."""
    target_latency: Milliseconds = None
    """Weigh latency by a table instead of multiply-adds, and aim at this: 20ms."""
    latency_table: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """The table, of the space searched, that nas.profile --build-table wrote."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What children are measured on."""

    evaluator: Annotated[
        str, tyro.conf.arg(metavar="train|imagenet-surrogate|MODULE:OBJECT")
    ] = "train"
    """How a child gets its metrics: by training it; as a prediction of its ImageNet
    top-1 (then --space is accel-nasbench, and --children 1000 by default); or by an
    evaluator of your own."""
    dataset: Annotated[
        str,
        tyro.conf.arg(
            metavar="NAME",
            help="patterns (generated), digits (inside scikit-learn), fashion_mnist, "
            "any image classification set of TensorFlow Datasets such as cifar10, "
            "the path of a folder of class folders, or module:function of your own.",
        ),
    ] = "patterns"
    data_dir: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the data set's files are, if not in their usual place."""
    download: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let TensorFlow Datasets fetch and prepare what is missing."""
    validation: Annotated[int | None, _COUNT] = None
    """Training images held out to measure children; by default a share of them."""
    share: Annotated[float, _NUMBER] = 1.0
    """Share of the other training images that children are trained on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition:
    """Everything that defines a search."""

    search: SearchOptions = SearchOptions()
    reward: RewardOptions = RewardOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    child: ChildConfig = dataclasses.field(default_factory=ChildConfig)


def to_json(definition: Any) -> dict[str, JsonValue]:
    """Returns the JSON object for a definition; `read` is its inverse."""
    return TypeAdapter(type(definition)).dump_python(definition, mode="json")


def from_json(record: dict[str, JsonValue]) -> Definition:
    """Returns the search's definition in a journal's header.

    Raises:
      ValueError: as `read`.
    """
    return read(record, Definition)


def read(record: dict[str, JsonValue], kind: type[_T]) -> _T:
    """Returns the definition of that kind in a journal's header.

    Raises:
      ValueError: if a field is unknown or of the wrong type. One line.
    """
    try:
        return TypeAdapter(kind).validate_json(
            json.dumps(_as_measured(record)), strict=True, extra="forbid"
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"the journal's header: definition.{field}: {first['msg']}, got "
            f"{json.dumps(first['input'], default=str)[:80]}; read it with the "
            "version that wrote it"
        ) from None


def _as_measured(record: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """As children once were: measured with the running batch statistics, unscaled.

    Where nothing is trained, how children would have been is today's default.
    """
    child, evaluation = record.get("child"), record.get("evaluation")
    if isinstance(evaluation, dict) and evaluation.get("evaluator") == SURROGATE:
        return {**record, "child": {}, "evaluation": {"evaluator": SURROGATE}}
    trains = not isinstance(evaluation, dict) or evaluation.get("evaluator") == "train"
    if not isinstance(child, dict) or "norm_batches" in child or not trains:
        return record
    return {**record, "child": {"branch_scale": 1.0, **child, "norm_batches": 0}}


def differences(old: _T, new: _T) -> list[str]:
    """Returns the flags whose values differ, each with both of them.

    The fields of a definition are groups of flags: dataclasses too.
    """
    found = []
    for group in dataclasses.fields(old):  # pyright: ignore[reportArgumentType]
        before, after = getattr(old, group.name), getattr(new, group.name)
        for field in dataclasses.fields(group.type):  # pyright: ignore[reportArgumentType]
            was, now = getattr(before, field.name), getattr(after, field.name)
            if was != now:
                flag = "--" + field.name.replace("_", "-")
                found.append(f"{flag} is {_shown(was)}, not {_shown(now)}")
    return found


def check_kept(recorded: Any, asked: Any, what: str) -> None:
    """Refuses other options than a run was started with, for one that goes on.

    Args:
      recorded: the definition in its journal's header.
      asked: that of the command line.
      what: what goes on, such as `search`.

    Raises:
      UsageError: if they differ.
    """
    if changed := differences(recorded, asked):
        raise UsageError(
            f"a resumed {what} keeps the options it was started with, and "
            f"{'; '.join(changed)}; drop these flags, or start a new {what}"
        )


def build_space(definition: Definition) -> SearchSpace:
    """Returns the search space, restricted.

    Raises:
      ValueError: if it is unknown, or has no such decisions or choices.
    """
    options = definition.search
    space = spaces.load(options.space)
    return space.restrict(parse_restrictions(options.restrict))


def build_reward(definition: Definition, metrics: Sequence[Metric]) -> Reward:
    """Returns the reward function.

    Args:
      definition: the search's.
      metrics: what its trials are measured by.

    Raises:
      ValueError: if an exponent rewards cost, or does not belong to this reward, a cost
        is of no metric, or the target does not belong to the objective.
    """
    options, weighed = definition.reward, objective(definition)
    if references.is_reference(options.reward):
        return _own_reward(options)
    if options.reward not in REWARDS:
        raise ValueError(
            f"--reward must be one of {', '.join(REWARDS)}, or module:object of your "
            f"own, got {options.reward[:80]!r}"
        )
    target = checked_target(definition)
    further = tuple(parse_cost(text, by_name(metrics)) for text in options.cost)
    if twice := [cost.metric for cost in further if cost.metric == weighed.name]:
        raise ValueError(
            f"--cost {twice[0]} is weighed already, by the objective; drop it, or set "
            "its exponents with --exponent-below and --exponent-above"
        )
    first = reward.Cost(metric=weighed.name, target=target, goal=weighed.goal)
    if options.reward == "absolute":
        return _absolute(options, first)
    if options.beta is not None:
        raise ValueError(
            f"--beta is for --reward absolute; --reward {options.reward} takes "
            "--exponent-below and --exponent-above"
        )
    if options.reward == "hard":
        first = dataclasses.replace(first, below=0.0, above=-1.0)
    below, above = options.exponent_below, options.exponent_above
    first = dataclasses.replace(
        first,
        below=first.below if below is None else below,
        above=first.above if above is None else above,
    )
    return reward.WeightedProduct(costs=(first, *further))


def _own_reward(options: RewardOptions) -> Reward:
    """Returns a user's reward.

    Raises:
      ValueError: if it is no function, or flags of ours are given as well.
    """
    plain = RewardOptions(
        reward=options.reward,
        objective=options.objective,
        target=options.target,
        target_latency=options.target_latency,
        latency_table=options.latency_table,
    )
    if options != plain:
        raise ValueError(
            f"--reward {options.reward} weighs what it likes, and --cost, --beta and "
            "the exponents are for soft, hard and absolute; drop them"
        )
    found: Reward = references.load(options.reward, "reward")
    if not callable(found):
        raise ValueError(
            f"--reward {options.reward} must be a function of the metrics by name, got "
            f"{type(found).__name__}"
        )
    return found


def references_in(definition: Definition) -> dict[str, str]:
    """Returns the modules of a user's own that a search names, by flag.

    Importing them runs them.
    """
    named = {
        "--space": definition.search.space,
        "--controller": definition.search.controller,
        "--reward": definition.reward.reward,
        "--evaluator": definition.evaluation.evaluator,
        "--dataset": definition.evaluation.dataset,
    }
    return {k: name for k, name in named.items() if references.is_reference(name)}


def objective(definition: Definition) -> Metric:
    """Returns the metric that accuracy is weighed against first."""
    options = definition.reward
    if options.target_latency is not None:
        return LATENCY_MS
    return NUM_MACS if options.objective == FLOPS else speed_metric(options.objective)


def objectives(definition: Definition, measured: Sequence[Metric]) -> tuple[str, ...]:
    """Returns the metrics that the search names: its front is over them.

    A reward of the user's own does not say what it weighs: then everything that the
    evaluator measures counts, and multiply-adds.

    Args:
      definition: the search's.
      measured: what its evaluator measures.
    """
    if references.is_reference(definition.reward.reward):
        return (*(metric.name for metric in measured), NUM_MACS.name)
    further = (text.partition("=")[0].strip() for text in definition.reward.cost)
    return (ACCURACY.name, objective(definition).name, *further)


def target(definition: Definition) -> float:
    """Returns the target, in the unit of `objective`."""
    options = definition.reward
    if options.target_latency is not None:
        return options.target_latency
    if options.objective == FLOPS:
        return definition.search.target_flops
    return options.target or math.nan


def speed_metric(name: str) -> Metric:
    """Returns the metric of a predicted speed, such as `throughput-a100`."""
    if name.startswith("throughput-"):
        return Metric(name=name, unit="images/s", goal="max")
    return Metric(name=name, unit="ms", goal="min")


def describe_reward(definition: Definition) -> str:
    """Returns the reward's kind and target in words."""
    options = definition.reward
    if references.is_reference(options.reward):
        return options.reward
    shown = format_metric(objective(definition), target(definition))
    if options.target_latency is not None:
        shown += f" by {options.latency_table}"
    elif options.objective != FLOPS:
        shown += ", predicted"
    return "; ".join([f"{options.reward}, target {shown}", *options.cost])


def accuracy_name(definition: Definition) -> str:
    """Returns what a child's accuracy is: measured, or a prediction of what."""
    if references.is_reference(definition.evaluation.evaluator):
        return "accuracy"
    if definition.evaluation.evaluator == SURROGATE:
        return "predicted ImageNet top-1"
    return "validation accuracy"


def checked_target(definition: Definition) -> float:
    """Returns the target, in the unit of `objective`.

    Raises:
      ValueError: if it is missing, or flags contradict each other. One line.
    """
    options, flops = definition.reward, definition.search.target_flops
    if (options.target_latency is None) != (options.latency_table is None):
        raise ValueError(
            "--target-latency and --latency-table go together, got"
            f" {options.target_latency} and {options.latency_table}; build a table with"
            f" nas.profile --build-table {definition.search.space}"
        )
    if options.target_latency is not None:
        _check_alone(definition)
        return options.target_latency
    if options.objective == FLOPS:
        if options.target is not None:
            raise ValueError(
                f"--target is for another --objective than flops, got {options.target};"
                " use --target-flops"
            )
        return flops
    if flops != SearchOptions().target_flops:
        raise ValueError(
            f"--target-flops is for --objective flops, got {format_flops(flops)} with "
            f"{options.objective}; use --target"
        )
    if options.target is None or not 0.0 < options.target < math.inf:
        raise ValueError(
            f"--objective {options.objective} needs a positive --target, in images a "
            f"second or milliseconds, got {options.target}"
        )
    return options.target


def _check_alone(definition: Definition) -> None:
    options, flops = definition.reward, definition.search.target_flops
    others = {
        "--objective": options.objective != FLOPS,
        "--target": options.target is not None,
        "--target-flops": flops != SearchOptions().target_flops,
        "--evaluator": definition.evaluation.evaluator == SURROGATE,
    }
    if given := [flag for flag, is_given in others.items() if is_given]:
        raise ValueError(
            "--target-latency is the target of a search that trains its children, got"
            f" {' and '.join(given)} as well; drop one or the other"
        )


def _absolute(options: RewardOptions, cost: reward.Cost) -> reward.Absolute:
    if options.exponent_below is not None or options.exponent_above is not None:
        raise ValueError(
            "--exponent-below and --exponent-above are for --reward soft and "
            "hard; --reward absolute takes --beta"
        )
    if options.cost:
        raise ValueError(
            "--cost adds factors to --reward soft and hard, which --reward absolute "
            "has none of; drop one or the other"
        )
    if options.beta is None:
        return reward.Absolute(costs=(cost,))
    return reward.Absolute(costs=(cost,), beta=options.beta)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
