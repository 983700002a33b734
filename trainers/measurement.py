"""What comes out of training a child: a `Measurement`, or `Infeasible`."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One trained child.

    `accuracy` is the share of the validation split classified correctly, in [0, 1].
    `losses` are training losses, one a step. `images_per_second` counts training
    images over `train_seconds`, which excludes `compile_seconds`. `num_macs` is of
    the network as trained (at the proxy resolution), `num_params` likewise.
    `objective` is what the reward weighs, where that is not multiply-adds: images a
    second or milliseconds.
    """

    accuracy: float
    losses: tuple[float, ...]
    images_per_second: float
    compile_seconds: float
    train_seconds: float
    eval_seconds: float
    num_params: int
    num_macs: int
    objective: float | None = None


@dataclasses.dataclass(frozen=True)
class Infeasible:
    """A child that could not be measured, and why."""

    reason: str
