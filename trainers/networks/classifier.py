"""A backbone with a classifier on top."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from search_space import layers
from search_space.spec import ArchSpec
from trainers.networks import backbone
from trainers.networks.backbone import Backbone, mode_of_block
from trainers.networks.blocks import BlockBuilder, NetworkBlock
from trainers.networks.units import (
    EVALUATION,
    ClassifierUnit,
    ConvUnit,
    DepthwiseUnit,
    Mode,
)


class Classifier(nnx.Module):
    """A whole network: images `[batch, height, width, channels]` to logits."""

    def __init__(self, backbone: Backbone, head: NetworkBlock, dtype: str) -> None:
        self.backbone = backbone
        self.head = head
        self.dtype = dtype

    @property
    def blocks(self) -> list[NetworkBlock]:
        """The backbone's blocks and the head, as `search_space.layers.blocks` has them.

        By their position in it go the names of weights and the random keys.
        """
        return [*self.backbone.blocks, self.head]

    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        mode: Mode = EVALUATION,
    ) -> Float[Array, "batch classes"]:
        """Returns float32 logits, and in training updates the running statistics."""
        maps = self.backbone(images.astype(self.dtype), mode)
        own = mode_of_block(mode, len(self.backbone.blocks))
        return self.head(maps[max(maps)], own).astype(jnp.float32)


def build(spec: ArchSpec, *, seed: int, dtype: str = "float32") -> Classifier:
    """Returns the network of `spec` with freshly drawn weights.

    Args:
      spec: any architecture; its `resolution` does not bind the network.
      seed: of the initial weights.
      dtype: in which maps are kept, `float32` or `bfloat16`; weights and statistics
        stay in float32.
    """
    builder = BlockBuilder(np.random.default_rng(seed), spec)
    below = backbone.build(builder, spec)
    (head,) = layers.blocks(spec)[len(below.blocks) :]
    return Classifier(below, builder.block(head), dtype)


def scale_branches(network: Classifier, scale: float) -> None:
    """Sets the scale of the last batch norm of every block that has a shortcut.

    At 0 each of these blocks starts as its shortcut, and the network as the shallow one
    that the others make (https://arxiv.org/abs/1706.02677, section 5.1); EfficientNet's
    code starts at 1.
    """
    for block in network.blocks:
        last = block.units[-1]
        if block.skip and isinstance(last, ConvUnit | DepthwiseUnit):
            shape = last.norm.scale[...].shape
            last.norm.scale[...] = np.full(shape, scale, np.float32)


def classifier_of(network: Classifier) -> ClassifierUnit:
    """Returns the network's last unit."""
    unit = network.head.units[-1]
    assert isinstance(unit, ClassifierUnit)  # what `build` makes
    return unit
