"""Mixup and CutMix: pictures and their targets blended within a batch.

Weights, boxes and partners are those of EfficientNetV2's TensorFlow code, whose mixup
is EfficientNet's too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Images = Float[Array, "batch height width channels"]
Targets = Float[Array, "batch classes"]


def mix(
    key: PRNGKeyArray,
    images: Images,
    targets: Targets,
    *,
    mixup: float | Array | None,
    cutmix: float | Array | None,
) -> tuple[Images, Targets]:
    """Applies what has an alpha.

    Where both do, the first half of the batch (the smaller, if it is odd) gets mixup
    and the second CutMix; partners are of the same half.
    """
    if mixup is not None and cutmix is not None:
        half = len(images) // 2
        mixup_key, cutmix_key = jax.random.split(key)
        blended = blend(mixup_key, images[:half], targets[:half], alpha=mixup)
        pasted = paste(cutmix_key, images[half:], targets[half:], alpha=cutmix)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), blended, pasted)
    if mixup is not None:
        return blend(key, images, targets, alpha=mixup)
    if cutmix is not None:
        return paste(key, images, targets, alpha=cutmix)
    return images, targets


def blend(
    key: PRNGKeyArray, images: Images, targets: Targets, *, alpha: float | Array
) -> tuple[Images, Targets]:
    """Mixup: blends each image with another of the batch (https://arxiv.org/abs/1710.09412).

    Each image has a share of its own, max(b, 1 - b) with b from Beta(alpha, alpha); the
    rest is its partner's, of the batch reversed.
    """
    share = _shares(key, alpha, len(images))
    share = jnp.maximum(share, 1 - share)
    return _weighted(share[:, None, None, None], images), _weighted(
        share[:, None], targets
    )


def paste(
    key: PRNGKeyArray, images: Images, targets: Targets, *, alpha: float | Array
) -> tuple[Images, Targets]:
    """CutMix: pastes a box of another image into each (https://arxiv.org/abs/1905.04899).

    Each image has a box of its own, of the image's aspect and a share of its area from
    Beta(alpha, alpha), centred on any pixel and cut at the border. Half its sides are
    whole pixels, rounded down. The partner is of the batch reversed; targets are mixed
    by the pixels that are left.
    """
    num, height, width, _ = images.shape
    share_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - _shares(share_key, alpha, num))
    rows = _span(row_key, side, height)
    columns = _span(column_key, side, width)
    box = rows[:, :, None] & columns[:, None, :]
    kept = 1 - box.mean((1, 2))
    return (
        jnp.where(box[..., None], images[::-1], images),
        _weighted(kept[:, None], targets),
    )


def _shares(key: PRNGKeyArray, alpha: float | Array, num: int) -> Float[Array, " num"]:
    """Draws from Beta(alpha, alpha); 1 where alpha is 0, for which there is none."""
    safe = jnp.where(alpha > 0, alpha, 1.0)
    return jnp.where(alpha > 0, jax.random.beta(key, safe, safe, (num,)), 1.0)


def _weighted(share: Array, values: Array) -> Array:
    return share * values + (1 - share) * values[::-1]


def _span(
    key: PRNGKeyArray, share: Float[Array, " num"], size: int
) -> Bool[Array, "num size"]:
    """Returns where spans of `share` of the size lie, each around a random place."""
    half = jnp.floor(share * size).astype(jnp.int32) // 2
    centre = jax.random.randint(key, share.shape, 0, size)
    place = jnp.arange(size)
    low, high = (centre - half)[:, None], (centre + half)[:, None]
    return (low <= place) & (place < high)
