"""Which part of an image a network is shown in evaluation, and how it is resized."""

import dataclasses

import numpy as np
from jaxtyping import Num

from trainers.data import pixels
from trainers.data.dataset import Image
from trainers.data.pixels import Interpolation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """From an image of any size to the square that a network reads.

    A trained network keeps its own, so that whoever uses it later shows it what it was
    measured with.

    Attributes:
      crop: side of the central square, as a share of the image's shorter side: 1 is
        the largest square, 0.875 is EfficientNet's.
      interpolation: of every resizing, in training as in evaluation; antialiased.
    """

    crop: float = 1.0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Refuses a crop that shows nothing, or more than there is."""
        if not 0 < self.crop <= 1:
            raise ValueError(
                f"crop must be above 0 and at most 1, got {self.crop}; 1 keeps the"
                " largest central square"
            )

    def central(
        self, image: Image, resolution: int
    ) -> Num[np.ndarray, "resolution resolution channels"]:
        """Returns the central square of `image`, resized to `resolution`."""
        return self.resize(image, resolution, self.box(*image.shape[:2]))

    def box(self, height: int, width: int) -> pixels.Box:
        """Returns the central square of an image of that size, in pixels.

        It is not rounded to whole pixels, and resizing reads on beyond its border as
        far as the filter is wide.

        >>> Framing(crop=0.875).box(256, 320)
        (48.0, 16.0, 272.0, 240.0)
        """
        return pixels.central_square(height, width, self.crop)

    def resize(
        self, image: Image, resolution: int, box: pixels.Box
    ) -> Num[np.ndarray, "resolution resolution channels"]:
        """Returns the part of `image` in `box`, resized to `resolution`."""
        return pixels.resize(image, resolution, box, self.interpolation)


WHOLE = Framing()
