"""What every head stands on: a stem and stages, from images to maps by stride."""

import dataclasses
from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from search_space import layers
from search_space.spec import ArchSpec
from trainers.networks.blocks import BlockBuilder, NetworkBlock
from trainers.networks.units import Maps, Mode


class Backbone(nnx.Module):
    """Blocks in a chain; `strides` has each one's, from the image on."""

    def __init__(self, blocks: list[NetworkBlock], strides: Sequence[int]) -> None:
        self.blocks = nnx.List(blocks)
        self.strides = tuple(strides)

    def __call__(
        self, x: Float[Array, "batch height width channels"], mode: Mode
    ) -> dict[int, Float[Array, "batch _ _ _"]]:
        """Returns the maps by stride, as `search_space.layers.feature_maps` has them.

        The one of the largest stride is the last block's output.
        """
        maps: dict[int, Maps] = {}
        chain = zip(self.blocks, self.strides, strict=True)
        for position, (block, stride) in enumerate(chain):
            x = block(x, mode_of_block(mode, position))
            maps[stride] = x  # the last one of a stride stays
        return maps


def build(builder: BlockBuilder, spec: ArchSpec) -> Backbone:
    """Returns the backbone of `spec` with weights that `builder` draws."""
    blocks = layers.backbone_blocks(spec)
    return Backbone(
        [builder.block(block) for block in blocks], layers.total_strides(blocks)
    )


def mode_of_block(mode: Mode, position: int) -> Mode:
    """Returns the mode with a random key of its own for the network's nth block."""
    key = None if mode.key is None else jax.random.fold_in(mode.key, position)
    return dataclasses.replace(mode, key=key)
