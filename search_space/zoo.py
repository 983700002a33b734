"""Published networks as plain specs, for ImageNet's 1000 classes.

They pad and normalize as their TensorFlow references do. A name with `-pytorch` behind
it is the same network with PyTorch's padding and epsilon, which weights need that were
trained there: timm's without `tf_` in their name. With that padding a projection that
strides reads what a strided expansion would have written alone: there the expansion
strides, as in timm.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from search_space import efficientnetv2
from search_space.scaling import PRESETS, apply_preset
from search_space.spec import (
    PYTORCH_NORM_EPSILON,
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    FusedMBConvStage,
    MBConvStage,
    SepConvStage,
    Skip,
    Stage,
    Stem,
)

PYTORCH = "-pytorch"


def names() -> tuple[str, ...]:
    """Returns the names that `load` knows; it knows each with `-pytorch` behind too."""
    scaled = (PRESETS[family].rows for family in _BASES)
    return (*itertools.chain.from_iterable(scaled), *_OTHERS)


def has(name: str) -> bool:
    """Says whether `load` knows the name.

    >>> has("mnasnet-a1"), has("mnasnet-a1-pytorch"), has("mnasnet")
    (True, True, False)
    """
    return name.removesuffix(PYTORCH) in names()


def load(name: str) -> ArchSpec:
    """Returns a published network.

    Raises:
      ValueError: if there is none of that name; the message lists those there are.
    """
    if name.endswith(PYTORCH) and has(name):
        return _as_pytorch(load(name.removesuffix(PYTORCH)))
    if name in _OTHERS:
        return _OTHERS[name]()
    for family, base in _BASES.items():
        if name in PRESETS[family].rows:
            scaled = apply_preset(PRESETS[family], name, base())
            return dataclasses.replace(scaled, name=name)
    raise ValueError(
        f"network must be one of {', '.join(names())}, got {name[:100]!r}; each of them"
        f" may have {PYTORCH} behind it"
    )


def _as_pytorch(spec: ArchSpec) -> ArchSpec:
    return dataclasses.replace(
        spec,
        name=spec.name + PYTORCH,
        stages=tuple(map(_striding_early, spec.stages)),
        padding="symmetric",
        norm_epsilon=PYTORCH_NORM_EPSILON,
    )


def _striding_early(stage: Stage) -> Stage:
    if isinstance(stage, FusedMBConvStage):
        return dataclasses.replace(stage, stride_on="expansion")
    return stage


# Expansion, kernel, stride, channels, repeats, squeeze-and-excitation, skip.
_Row = tuple[int, int, int, int, int, float, Skip]


def _mbconvs(rows: Iterable[_Row]) -> tuple[MBConvStage, ...]:
    return tuple(
        MBConvStage(
            expansion=expansion,
            kernel=kernel,
            stride=stride,
            channels=channels,
            repeats=repeats,
            se_ratio=se_ratio,
            skip=skip,
        )
        for expansion, kernel, stride, channels, repeats, se_ratio, skip in rows
    )


def _efficientnet_b0() -> ArchSpec:
    """Table 1 of https://arxiv.org/abs/1905.11946.

    The 112-channel stage runs at 14x14, as its strides make it; some printings of
    the table give it 28x28.
    """
    return ArchSpec(
        name="efficientnet-b0",
        resolution=224,
        activation="swish",
        stem=Stem(channels=32),
        stages=_mbconvs(
            (
                (1, 3, 1, 16, 1, 0.25, "identity"),
                (6, 3, 2, 24, 2, 0.25, "identity"),
                (6, 5, 2, 40, 2, 0.25, "identity"),
                (6, 3, 2, 80, 3, 0.25, "identity"),
                (6, 5, 1, 112, 3, 0.25, "identity"),
                (6, 5, 2, 192, 4, 0.25, "identity"),
                (6, 3, 1, 320, 1, 0.25, "identity"),
            )
        ),
        head=ClassifierHead(channels=1280, dropout=0.2),
        drop_path=0.2,
    )


def _efficientnet_lite0() -> ArchSpec:
    """B0 with ReLU6 and without squeeze-and-excitation (its TensorFlow code)."""
    base = _efficientnet_b0()
    stages = tuple(dataclasses.replace(stage, se_ratio=0.0) for stage in base.stages)
    return dataclasses.replace(base, activation="relu6", stages=stages)


def _mnasnet_a1() -> ArchSpec:
    """Figure 7 of https://arxiv.org/abs/1807.11626; SepConv is expansion 1."""
    return ArchSpec(
        name="mnasnet-a1",
        resolution=224,
        activation="relu",
        stem=Stem(channels=32),
        stages=_mbconvs(
            (
                (1, 3, 1, 16, 1, 0.0, "none"),
                (6, 3, 2, 24, 2, 0.0, "identity"),
                (3, 5, 2, 40, 3, 0.25, "identity"),
                (6, 3, 2, 80, 4, 0.0, "identity"),
                (6, 3, 1, 112, 2, 0.25, "identity"),
                (6, 5, 2, 160, 3, 0.25, "identity"),
                (6, 3, 1, 320, 1, 0.0, "identity"),
            )
        ),
        head=ClassifierHead(channels=1280, dropout=0.2),
    )


def _mnasnet_b1() -> ArchSpec:
    """The search without squeeze-and-excitation (MnasNet's TensorFlow code)."""
    return ArchSpec(
        name="mnasnet-b1",
        resolution=224,
        activation="relu",
        stem=Stem(channels=32),
        stages=_mbconvs(
            (
                (1, 3, 1, 16, 1, 0.0, "none"),
                (3, 3, 2, 24, 3, 0.0, "identity"),
                (3, 5, 2, 40, 3, 0.0, "identity"),
                (6, 5, 2, 80, 3, 0.0, "identity"),
                (6, 3, 1, 96, 2, 0.0, "identity"),
                (6, 5, 2, 192, 4, 0.0, "identity"),
                (6, 3, 1, 320, 1, 0.0, "none"),
            )
        ),
        head=ClassifierHead(channels=1280, dropout=0.2),
    )


def _mobilenet_v1() -> ArchSpec:
    """Table 1 of https://arxiv.org/abs/1704.04861, its last stride read as 1.

    The table prints a stride of 2 for the last layer beside an output that was not
    halved; every implementation uses 1.
    """
    rows = ((1, 64, 1), (2, 128, 2), (2, 256, 2), (2, 512, 6), (2, 1024, 2))
    return ArchSpec(
        name="mobilenet-v1",
        resolution=224,
        activation="relu",
        stem=Stem(channels=32),
        stages=tuple(
            SepConvStage(kernel=3, stride=stride, channels=channels, repeats=repeats)
            for stride, channels, repeats in rows
        ),
        head=ClassifierHead(channels=None),
    )


def _mobilenet_v2() -> ArchSpec:
    """Table 2 of https://arxiv.org/abs/1801.04381."""
    return ArchSpec(
        name="mobilenet-v2",
        resolution=224,
        activation="relu6",
        stem=Stem(channels=32),
        stages=_mbconvs(
            (
                (1, 3, 1, 16, 1, 0.0, "identity"),
                (6, 3, 2, 24, 2, 0.0, "identity"),
                (6, 3, 2, 32, 3, 0.0, "identity"),
                (6, 3, 2, 64, 4, 0.0, "identity"),
                (6, 3, 1, 96, 3, 0.0, "identity"),
                (6, 3, 2, 160, 3, 0.0, "identity"),
                (6, 3, 1, 320, 1, 0.0, "identity"),
            )
        ),
        head=ClassifierHead(channels=1280, dropout=0.2),
    )


def _resnet_50() -> ArchSpec:
    """Table 1 of https://arxiv.org/abs/1512.03385; the stride is on the 3x3."""
    rows = ((1, 64, 3), (2, 128, 4), (2, 256, 6), (2, 512, 3))
    return ArchSpec(
        name="resnet-50",
        resolution=224,
        activation="relu",
        stem=Stem(channels=64, kernel=7, pool=True),
        stages=tuple(
            BottleneckStage(
                kernel=3,
                stride=stride,
                bottleneck=width,
                channels=4 * width,
                repeats=repeats,
            )
            for stride, width, repeats in rows
        ),
        head=ClassifierHead(channels=None),
    )


# What each of `PRESETS` scales.
_BASES: dict[str, Callable[[], ArchSpec]] = {
    "efficientnet": _efficientnet_b0,
    "efficientnet-lite": _efficientnet_lite0,
    "efficientnetv2": efficientnetv2.b0,
    "efficientnet-edgetpu": efficientnetv2.edgetpu_s,
}
_OTHERS: dict[str, Callable[[], ArchSpec]] = {
    **efficientnetv2.NETWORKS,
    "mnasnet-a1": _mnasnet_a1,
    "mnasnet-b1": _mnasnet_b1,
    "mobilenet-v1": _mobilenet_v1,
    "mobilenet-v2": _mobilenet_v2,
    "resnet-50": _resnet_50,
}
