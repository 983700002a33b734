"""Mixup and CutMix: pictures and their targets blended within a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Images = Float[Array, "batch height width channels"]
Targets = Float[Array, "batch classes"]


def mix(
    key: PRNGKeyArray,
    images: Images,
    targets: Targets,
    *,
    mixup: float,
    cutmix: float,
) -> tuple[Images, Targets]:
    """Applies what has an alpha above 0; where both do, one or the other by a coin."""
    coin_key, mixup_key, cutmix_key = jax.random.split(key, 3)
    mixed = blend(mixup_key, images, targets, alpha=mixup) if mixup else None
    pasted = paste(cutmix_key, images, targets, alpha=cutmix) if cutmix else None
    if mixed is None or pasted is None:
        return mixed or pasted or (images, targets)
    heads = jax.random.bernoulli(coin_key)
    return jax.tree.map(lambda a, b: jnp.where(heads, a, b), mixed, pasted)


def blend(
    key: PRNGKeyArray, images: Images, targets: Targets, *, alpha: float
) -> tuple[Images, Targets]:
    """Mixup: blends each image with another of the batch (https://arxiv.org/abs/1710.09412).

    One share for the batch, from Beta(alpha, alpha); the partners are the batch
    reversed, as in EfficientNet's code, and the larger share is an image's own.
    """
    share = jax.random.beta(key, alpha, alpha)
    share = jnp.maximum(share, 1 - share)
    return (
        share * images + (1 - share) * images[::-1],
        share * targets + (1 - share) * targets[::-1],
    )


def paste(
    key: PRNGKeyArray, images: Images, targets: Targets, *, alpha: float
) -> tuple[Images, Targets]:
    """CutMix: pastes a box of another image into each (https://arxiv.org/abs/1905.04899).

    The box has the image's aspect and a share of its area from Beta(alpha, alpha); it
    is centred anywhere and cut at the border. Targets are mixed by the pixels left.
    """
    share_key, *centre_keys = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
    height, width = images.shape[1:3]
    inside = [
        jnp.abs(jnp.arange(size) + 0.5 - jax.random.uniform(k, maxval=size))
        <= side * size / 2
        for k, size in zip(centre_keys, (height, width), strict=True)
    ]
    box = inside[0][:, None] & inside[1][None, :]
    pasted = jnp.where(box[None, :, :, None], images[::-1], images)
    kept = 1 - box.mean()
    return pasted, kept * targets + (1 - kept) * targets[::-1]
