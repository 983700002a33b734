"""Light augmentation on the device: random shifts and mirror images."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may be done to a training image without changing its class.

    `max_shift` is the largest shift, up or down and left or right, as a share of the
    side: 0.125 is the 4 pixels of 32 usual for CIFAR (arXiv:1512.03385, section 4.2).
    `flip` mirrors half of the images. `min_area` is the least share of its area that
    a random crop keeps of an image (0.08 in arXiv:1409.4842; 1 means no crop). Crops
    are cut from the full picture while it is decoded, so they are for streamed
    images, where they stand in place of shifts.
    """

    max_shift: float
    flip: bool
    min_area: float

    def __post_init__(self) -> None:
        if not 0 <= self.max_shift < 1:
            raise ValueError(
                f"max_shift must be in [0, 1), got {self.max_shift}; it is a share of"
                " the side, not pixels"
            )
        if not 0 < self.min_area <= 1:
            raise ValueError(
                f"min_area must be in (0, 1], got {self.min_area}; 1 means no crop"
            )


NONE = Augmentation(max_shift=0.0, flip=False, min_area=1.0)
LIGHT = Augmentation(max_shift=0.125, flip=True, min_area=0.08)


def shift(
    key: PRNGKeyArray, images: Float[Array, "batch height width channels"], pixels: int
) -> Float[Array, "batch height width channels"]:
    """Moves each image by up to `pixels` each way, repeating its border pixels.

    The border is repeated because a constant would need to know what black, or the
    background, is after standardisation.
    """
    num, height, width, _ = images.shape
    down, right = jax.random.randint(key, (2, num, 1), -pixels, pixels + 1)
    rows = jnp.clip(jnp.arange(height) + down, 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + right, 0, width - 1)
    return images[jnp.arange(num)[:, None, None], rows[:, :, None], columns[:, None]]


def flip(
    key: PRNGKeyArray, images: Float[Array, "batch height width channels"]
) -> Float[Array, "batch height width channels"]:
    """Mirrors each image left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def apply(
    key: PRNGKeyArray,
    images: Float[Array, "batch height width channels"],
    augmentation: Augmentation,
) -> Float[Array, "batch height width channels"]:
    """Shifts and flips `images` as `augmentation` says; crops are not made here."""
    shift_key, flip_key = jax.random.split(key)
    if pixels := round(augmentation.max_shift * images.shape[1]):
        images = shift(shift_key, images, pixels)
    if augmentation.flip:
        images = flip(flip_key, images)
    return images
