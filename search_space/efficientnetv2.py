"""The published networks with Fused-MBConv: EfficientNetV2 and EfficientNet-EdgeTPU.

V2's blocks are those of its TensorFlow code, which has no last stage of stride 1 in S,
and heads of 1280 channels, unlike table 4 of https://arxiv.org/abs/2104.00298. All
kernels are 3x3; fused stages have no squeeze-and-excitation, the others have it.
Resolutions are those of evaluation: training ends at 300 pixels for S, at 384 for M, L
and XL.
"""

import functools
from collections.abc import Callable, Mapping

from search_space.spec import (
    ArchSpec,
    ClassifierHead,
    FusedMBConvStage,
    MBConvStage,
    Skip,
    Stem,
)

_Rows = tuple[tuple[int, int, int, int], ...]
"""Of each stage: expansion, stride, channels, repeats."""


def _network(
    name: str,
    *,
    stem: int,
    fused: _Rows,
    others: _Rows,
    resolution: int,
    dropout: float,
) -> ArchSpec:
    return ArchSpec(
        name=name,
        resolution=resolution,
        activation="swish",
        stem=Stem(channels=stem),
        stages=(
            *(
                FusedMBConvStage(
                    expansion=expansion,
                    kernel=3,
                    stride=stride,
                    channels=channels,
                    repeats=repeats,
                )
                for expansion, stride, channels, repeats in fused
            ),
            *(
                MBConvStage(
                    expansion=expansion,
                    kernel=3,
                    stride=stride,
                    channels=channels,
                    repeats=repeats,
                    se_ratio=0.25,
                )
                for expansion, stride, channels, repeats in others
            ),
        ),
        head=ClassifierHead(channels=1280, dropout=dropout),
        drop_path=0.2,
    )


def b0() -> ArchSpec:
    """What B1 to B3 are scaled from (`search_space.scaling.PRESETS`)."""
    return _network(
        "efficientnetv2-b0",
        stem=32,
        fused=((1, 1, 16, 1), (4, 2, 32, 2), (4, 2, 48, 2)),
        others=((4, 2, 96, 3), (6, 1, 112, 5), (6, 2, 192, 8)),
        resolution=224,
        dropout=0.2,
    )


NETWORKS: Mapping[str, Callable[[], ArchSpec]] = {
    "efficientnetv2-s": functools.partial(
        _network,
        "efficientnetv2-s",
        stem=24,
        fused=((1, 1, 24, 2), (4, 2, 48, 4), (4, 2, 64, 4)),
        others=((4, 2, 128, 6), (6, 1, 160, 9), (6, 2, 256, 15)),
        resolution=384,
        dropout=0.2,
    ),
    "efficientnetv2-m": functools.partial(
        _network,
        "efficientnetv2-m",
        stem=24,
        fused=((1, 1, 24, 3), (4, 2, 48, 5), (4, 2, 80, 5)),
        others=((4, 2, 160, 7), (6, 1, 176, 14), (6, 2, 304, 18), (6, 1, 512, 5)),
        resolution=480,
        dropout=0.3,
    ),
    "efficientnetv2-l": functools.partial(
        _network,
        "efficientnetv2-l",
        stem=32,
        fused=((1, 1, 32, 4), (4, 2, 64, 7), (4, 2, 96, 7)),
        others=((4, 2, 192, 10), (6, 1, 224, 19), (6, 2, 384, 25), (6, 1, 640, 7)),
        resolution=480,
        dropout=0.4,
    ),
    "efficientnetv2-xl": functools.partial(
        _network,
        "efficientnetv2-xl",
        stem=32,
        fused=((1, 1, 32, 4), (4, 2, 64, 8), (4, 2, 96, 8)),
        others=((4, 2, 192, 16), (6, 1, 256, 24), (6, 2, 512, 32), (6, 1, 640, 8)),
        resolution=512,
        dropout=0.4,
    ),
}


def edgetpu_s() -> ArchSpec:
    """EfficientNet-EdgeTPU's TensorFlow code, for 1000 classes instead of its 1001.

    Its fused blocks stride in the projection, which reads a quarter of what the
    expansion computes (https://github.com/tensorflow/tpu/issues/660). Its first stage
    expands as if the stem wrote the 24 channels that it writes itself; it writes 32.
    """
    fused: tuple[tuple[int, int, int, int, Skip], ...] = (
        (4, 1, 24, 1, "none"),
        (8, 2, 32, 2, "identity"),
        (8, 2, 48, 4, "identity"),
    )
    others = ((2, 96, 5), (1, 144, 4), (2, 192, 2))
    return ArchSpec(
        name="efficientnet-edgetpu-s",
        resolution=224,
        activation="relu",
        stem=Stem(channels=32),
        stages=(
            *(
                FusedMBConvStage(
                    expansion=expansion,
                    kernel=3,
                    stride=stride,
                    channels=channels,
                    repeats=repeats,
                    skip=skip,
                    stride_on="projection",
                    expansion_of="input" if i else "output",
                )
                for i, (expansion, stride, channels, repeats, skip) in enumerate(fused)
            ),
            *(
                MBConvStage(
                    expansion=8,
                    kernel=5,
                    stride=stride,
                    channels=channels,
                    repeats=repeats,
                )
                for stride, channels, repeats in others
            ),
        ),
        head=ClassifierHead(channels=1280, dropout=0.2),
        drop_path=0.2,
    )
