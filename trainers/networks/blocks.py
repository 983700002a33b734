"""Blocks of units and how they are wired, as `search_space.layers` has them."""

import numpy as np
from flax import nnx
from jaxtyping import Array

from search_space import layers
from search_space.spec import (
    STEM_POOL_KERNEL,
    STEM_POOL_STRIDE,
    Activation,
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    ConvStage,
    FusedMBConvStage,
    MBConvStage,
    SepConvStage,
    Stem,
)
from trainers.networks.units import (
    ClassifierUnit,
    Convention,
    ConvUnit,
    DepthwiseUnit,
    Mode,
    PoolShortcut,
    SqueezeExciteUnit,
    Unit,
)


class NetworkBlock(nnx.Module):
    """Units in a chain; the last one adds the shortcut.

    `shortcut` maps the block's input to what is added; where `skip` is true and it is
    None, the input itself is.
    """

    def __init__(
        self, units: list[Unit], *, skip: bool = False, shortcut: Unit | None = None
    ) -> None:
        self.units = nnx.List(units)
        self.skip = skip
        self.shortcut = shortcut

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Returns the last unit's output with the shortcut added."""
        added = None
        if self.skip:
            added = x if self.shortcut is None else self.shortcut(x, None, mode)
        for unit in self.units[:-1]:
            x = unit(x, None, mode)
        return self.units[-1](x, added, mode)


class BlockBuilder:
    """Makes the blocks of one network, drawing their weights in order."""

    def __init__(self, rng: np.random.Generator, spec: ArchSpec) -> None:
        self._rng = rng
        self._activation: Activation = spec.activation
        self._convention = Convention(
            padding=spec.padding, norm_epsilon=spec.norm_epsilon
        )

    def block(self, block: layers.Block) -> NetworkBlock:
        """Returns the units of a block, whatever part of the network it is."""
        match block.spec:
            case Stem() as stem:
                units = [self._stem(block, stem)]
            case ClassifierHead() as head:
                units = self._classifier_head(block, head)
            case ConvStage() as stage:
                units = self._conv_layer(block, stage)
            case SepConvStage() as stage:
                units = self._sepconv_layer(block, stage)
            case MBConvStage() as stage:
                units = self._mbconv_layer(block, stage)
            case FusedMBConvStage() as stage:
                units = self._fused_mbconv_layer(block, stage)
            case BottleneckStage() as stage:
                units = self._bottleneck_layer(block, stage)
        shortcut = self._shortcut(block)
        return NetworkBlock(units, skip=block.skip != "none", shortcut=shortcut)

    def _shortcut(self, block: layers.Block) -> Unit | None:
        match block.skip:
            case "none" | "identity":
                return None
            case "pool":
                return PoolShortcut(
                    out_channels=block.out_channels, stride=block.stride
                )
            case "projection":
                return self._conv(
                    block.in_channels,
                    block.out_channels,
                    stride=block.stride,
                    activation=None,
                )

    def _stem(self, block: layers.Block, stem: Stem) -> Unit:
        pool = (STEM_POOL_KERNEL, STEM_POOL_STRIDE)
        return self._conv(
            block.in_channels,
            block.out_channels,
            kernel=stem.kernel,
            stride=block.stride,
            activation=self._activation,
            max_pool=pool if stem.pool else None,
        )

    def _classifier_head(self, block: layers.Block, head: ClassifierHead) -> list[Unit]:
        units: list[Unit] = []
        channels = block.in_channels
        if head.channels is not None:
            units.append(
                self._conv(channels, head.channels, activation=self._activation)
            )
            channels = head.channels
        classifier = ClassifierUnit(
            self._rng,
            channels=channels,
            classes=block.out_channels,
            dropout=head.dropout,
        )
        return [*units, classifier]

    def _conv_layer(self, block: layers.Block, stage: ConvStage) -> list[Unit]:
        conv = self._conv(
            block.in_channels,
            block.out_channels,
            kernel=stage.kernel,
            stride=block.stride,
            activation=self._activation,
            drop_rate=0.0 if block.se_hidden else block.drop_rate,
        )
        return [
            conv,
            *self._squeeze_excite(block, block.out_channels, block.drop_rate),
        ]

    def _sepconv_layer(self, block: layers.Block, stage: SepConvStage) -> list[Unit]:
        return [
            self._depthwise(block, block.in_channels, stage.kernel),
            self._conv(
                block.in_channels, block.out_channels, activation=self._activation
            ),
        ]

    def _mbconv_layer(self, block: layers.Block, stage: MBConvStage) -> list[Unit]:
        units: list[Unit] = []
        expanded = layers.inner_channels(block)
        if stage.expansion > 1:
            units.append(
                self._conv(block.in_channels, expanded, activation=self._activation)
            )
        units.append(self._depthwise(block, expanded, stage.kernel))
        units += self._squeeze_excite(block, expanded)
        project = self._conv(
            expanded, block.out_channels, activation=None, drop_rate=block.drop_rate
        )
        return [*units, project]

    def _fused_mbconv_layer(
        self, block: layers.Block, stage: FusedMBConvStage
    ) -> list[Unit]:
        if stage.expansion == 1:
            return [
                *self._squeeze_excite(block, block.in_channels),
                self._conv(
                    block.in_channels,
                    block.out_channels,
                    kernel=stage.kernel,
                    stride=block.stride,
                    activation=self._activation,
                    drop_rate=block.drop_rate,
                ),
            ]
        expanded = layers.inner_channels(block)
        expanding, projecting = layers.fused_strides(stage, block.stride)
        return [
            self._conv(
                block.in_channels,
                expanded,
                kernel=stage.kernel,
                stride=expanding,
                activation=self._activation,
            ),
            *self._squeeze_excite(block, expanded),
            self._conv(
                expanded,
                block.out_channels,
                stride=projecting,
                activation=None,
                drop_rate=block.drop_rate,
            ),
        ]

    def _bottleneck_layer(
        self, block: layers.Block, stage: BottleneckStage
    ) -> list[Unit]:
        activation = self._activation
        return [
            self._conv(block.in_channels, stage.bottleneck, activation=activation),
            self._conv(
                stage.bottleneck,
                stage.bottleneck,
                kernel=stage.kernel,
                stride=block.stride,
                activation=activation,
            ),
            self._conv(
                stage.bottleneck,
                block.out_channels,
                activation=None,
                activation_after=activation,
                drop_rate=block.drop_rate,
            ),
        ]

    def _conv(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        activation: Activation | None,
        activation_after: Activation | None = None,
        max_pool: tuple[int, int] | None = None,
        drop_rate: float = 0.0,
    ) -> Unit:
        return ConvUnit(
            self._rng,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=stride,
            activation=activation,
            activation_after=activation_after,
            max_pool=max_pool,
            drop_rate=drop_rate,
            convention=self._convention,
        )

    def _depthwise(self, block: layers.Block, channels: int, kernel: int) -> Unit:
        return DepthwiseUnit(
            self._rng,
            channels=channels,
            kernel=kernel,
            stride=block.stride,
            activation=self._activation,
            convention=self._convention,
        )

    def _squeeze_excite(
        self, block: layers.Block, channels: int, drop_rate: float = 0.0
    ) -> list[Unit]:
        if not block.se_hidden:
            return []
        unit = SqueezeExciteUnit(
            self._rng,
            channels=channels,
            hidden=block.se_hidden,
            activation=self._activation,
            drop_rate=drop_rate,
        )
        return [unit]
