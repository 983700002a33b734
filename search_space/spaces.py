"""The named search spaces.

Decisions are called `stage<i>.<what>`, from stage 0, in the order in which each space
lists them. Choices of `layers` are the layers themselves, not their difference from
the original network's, so that they read the same in every space.

A width multiplied is rounded to a multiple of 4: with EfficientNet's 8, three quarters
of 16 channels would be 16 again, and two sequences of tokens the same network.
"""

import dataclasses
import functools

from search_space import references, zoo
from search_space.space import SearchSpace, StageChoices
from search_space.spec import ConvStage, FusedMBConvStage, MBConvStage, Skip, Stage

_WIDTHS = (0.75, 1.0, 1.25)
_DIVISOR = 4


def names() -> tuple[str, ...]:
    """Returns the names of the spaces here."""
    return tuple(_SPACES)


def load(name: str) -> SearchSpace:
    """Returns a space by its name here, or as `module:attribute` from a user's module.

    Importing a user's module runs it.

    Raises:
      ValueError: if there is no such space; the message says which there are.
    """
    if name in _SPACES:
        return _SPACES[name]()
    if not references.is_reference(name):
        raise ValueError(
            f"space must be one of {', '.join(_SPACES)} or module:attribute of your"
            f" own, got {name[:100]!r}"
        )
    found = references.load(name, "space")
    if not isinstance(found, SearchSpace):
        raise ValueError(f"{name} must be a SearchSpace, got {type(found).__name__}")
    return found


def _mbconv() -> SearchSpace:
    """MnasNet's factorization around EfficientNet-B0's stages; it contains B0.

    A stage's decisions: kernel, expansion, squeeze-and-excitation, layers (one fewer
    than B0's, the same, one more; 1, 2 or 3 where B0 has one), width (of B0's).
    """
    base = zoo.load("efficientnet-b0")
    return SearchSpace(
        name="mbconv",
        base=base,
        stages=tuple(
            StageChoices(
                choices={
                    "kernel": (3, 5),
                    "expansion": (1, 3, 6),
                    "se_ratio": (0.0, 0.25),
                    "layers": _layers_around(stage.repeats),
                    "width": _WIDTHS,
                },
                build=functools.partial(
                    _mbconv_stage, channels=stage.channels, stride=stage.stride
                ),
            )
            for stage in base.stages
        ),
    )


def _mnasnet() -> SearchSpace:
    """MnasNet's space around MobileNetV2's stages, section 4.1 of arXiv:1807.11626.

    A stage's decisions: op, kernel, squeeze-and-excitation, skip, width, layers.
    The paper states 432 combinations for a block, but the options that it lists
    multiply to 324. We read MBConv as two operations, of expansion 3 and 6, both of
    which MnasNet-A1 has: 4 * 2 * 2 * 3 * 3 * 3 = 432. SepConv is an MBConv of
    expansion 1. The paper searches five blocks in its estimate of the size; these are
    the seven of MobileNetV2. Layers are one fewer than there, the same or one more;
    1, 2 or 3 where MobileNetV2 has one.
    """
    base = zoo.load("mobilenet-v2")
    return SearchSpace(
        name="mnasnet",
        base=base,
        stages=tuple(
            StageChoices(
                choices={
                    "op": ("conv", *_EXPANSIONS),
                    "kernel": (3, 5),
                    "se_ratio": (0.0, 0.25),
                    "skip": ("pool", "identity", "none"),
                    "width": _WIDTHS,
                    "layers": _layers_around(stage.repeats),
                },
                build=functools.partial(
                    _mnasnet_stage, channels=stage.channels, stride=stage.stride
                ),
            )
            for stage in base.stages
        ),
    )


def _accel_nasbench() -> SearchSpace:
    """Accel-NASBench's space (https://github.com/afzalxo/Accel-NASBench).

    A stage's decisions: expansion, kernel, layers, squeeze-and-excitation. Widths,
    strides, stem and head are EfficientNet-B0's.
    """
    base = zoo.load("efficientnet-b0")
    four_layers = 5  # the one stage that may have a fourth layer
    return SearchSpace(
        name="accel-nasbench",
        base=base,
        stages=tuple(
            StageChoices(
                choices={
                    "expansion": (1, 4, 6),
                    "kernel": (3, 5),
                    "layers": (1, 2, 3, 4) if i == four_layers else (1, 2, 3),
                    "se_ratio": (0.0, 0.25),
                },
                build=functools.partial(
                    _mbconv_stage,
                    channels=stage.channels,
                    stride=stage.stride,
                    width=1.0,
                ),
            )
            for i, stage in enumerate(base.stages)
        ),
    )


def _efficientnetv2() -> SearchSpace:
    """EfficientNetV2's space, section 3.3 of https://arxiv.org/abs/2104.00298.

    A stage's decisions: layers, op, kernel, expansion. MBConv has squeeze-and-
    excitation of 0.25 and Fused-MBConv none, as in the networks found.

    Our reading. The paper takes the widths over from EfficientNet and searches networks
    of B4's size; it lists neither widths nor layers. Here widths, stem and head are
    those of V2-S, and layers are one fewer to one more than 1, 2, 2, 3, 5 and 8: what
    B4's depth coefficient of 1.8 makes V2-S of. That network has 3.9 billion
    multiply-adds at B4's 380 pixels, where B4 has 4.4. The stage of stride 1 at
    EfficientNet's end, which is gone in V2-S, has B4's 448 channels and may have no
    layers; then its other decisions do not matter.
    """
    base = zoo.load("efficientnetv2-s")
    last = StageChoices(
        choices={"layers": (0, 1, 2), **_V2_CHOICES},
        build=functools.partial(_efficientnetv2_stage, channels=448, stride=1),
        needs={name: {"layers": (1, 2)} for name in _V2_CHOICES},
    )
    return SearchSpace(
        name="efficientnetv2",
        base=dataclasses.replace(base, resolution=380),
        stages=(
            *(
                StageChoices(
                    choices={"layers": _layers_around(layers), **_V2_CHOICES},
                    build=functools.partial(
                        _efficientnetv2_stage,
                        channels=stage.channels,
                        stride=stage.stride,
                    ),
                )
                for stage, layers in zip(base.stages, (1, 2, 2, 3, 5, 8), strict=True)
            ),
            last,
        ),
    )


_SPACES = {
    "mbconv": _mbconv,
    "mnasnet": _mnasnet,
    "accel-nasbench": _accel_nasbench,
    "efficientnetv2": _efficientnetv2,
}

# MnasNet's operations that are inverted residuals, and their expansions.
_EXPANSIONS = {"sepconv": 1, "mbconv3": 3, "mbconv6": 6}

_V2_CHOICES = {
    "op": ("mbconv", "fused"),
    "kernel": (3, 5),
    "expansion": (1, 4, 6),
}


def _layers_around(layers: int) -> tuple[int, ...]:
    fewest = max(1, layers - 1)
    return (fewest, fewest + 1, fewest + 2)


def _scaled_width(channels: int, width: float) -> int:
    return int(channels * width / _DIVISOR + 0.5) * _DIVISOR


def _mbconv_stage(
    *,
    channels: int,
    stride: int,
    kernel: int,
    expansion: int,
    se_ratio: float,
    layers: int,
    width: float,
) -> Stage:
    return MBConvStage(
        channels=_scaled_width(channels, width),
        kernel=kernel,
        stride=stride,
        expansion=expansion,
        repeats=layers,
        se_ratio=se_ratio,
    )


def _mnasnet_stage(
    *,
    channels: int,
    stride: int,
    op: str,
    kernel: int,
    se_ratio: float,
    skip: Skip,
    width: float,
    layers: int,
) -> Stage:
    channels = _scaled_width(channels, width)
    if op == "conv":
        return ConvStage(
            channels=channels,
            kernel=kernel,
            stride=stride,
            repeats=layers,
            se_ratio=se_ratio,
            skip=skip,
        )
    return MBConvStage(
        channels=channels,
        kernel=kernel,
        stride=stride,
        expansion=_EXPANSIONS[op],
        repeats=layers,
        se_ratio=se_ratio,
        skip=skip,
    )


def _efficientnetv2_stage(
    *, channels: int, stride: int, layers: int, op: str, kernel: int, expansion: int
) -> Stage | None:
    if layers == 0:
        return None
    if op == "fused":
        return FusedMBConvStage(
            channels=channels,
            kernel=kernel,
            stride=stride,
            expansion=expansion,
            repeats=layers,
        )
    return MBConvStage(
        channels=channels,
        kernel=kernel,
        stride=stride,
        expansion=expansion,
        repeats=layers,
        se_ratio=0.25,
    )
