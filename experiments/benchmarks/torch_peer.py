"""Children in PyTorch eager, as a PyTorch user would write them well.

Channels-last, activations in place, a fused optimizer, inference mode for evaluation,
one thread. Networks are built from the same layers as ours, so they have the same
parameters; padding is PyTorch's, which costs the same.
"""

# torch's types are unknown where it is not installed, as for `make test`.
# pyright: reportUnknownParameterType=false, reportUntypedBaseClass=false

import dataclasses
import math

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # noqa: N812  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from search_space import layers
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem

_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
    """What both sides train on: the same images, in the same order.

    Attributes:
      images: `[steps, batch, channels, height, width]`, float32, standardised.
      labels: `[steps, batch]`.
      validation_images: `[num, channels, height, width]`.
      validation_labels: `[num]`.
      learning_rates: `[steps]`.
    """

    images: Tensor
    labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    learning_rates: np.ndarray

    @classmethod
    def load(cls, path: str) -> "Batches":
        """Reads what `children` wrote, `[..., height, width, channels]` there."""
        with np.load(path, allow_pickle=False) as arrays:
            images = torch.from_numpy(arrays["images"])
            validation = torch.from_numpy(arrays["validation_images"])
            return cls(
                images=images.permute(0, 1, 4, 2, 3),  # strides stay channels-last
                labels=torch.from_numpy(arrays["labels"]).long(),
                validation_images=validation.permute(0, 3, 1, 2),
                validation_labels=torch.from_numpy(arrays["validation_labels"]).long(),
                learning_rates=arrays["learning_rates"],
            )


class ConvNorm(nn.Sequential):
    """Convolution - BN - activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None,
    ) -> None:
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        fan_out = kernel * kernel * out_channels / groups
        nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
        parts = [conv, nn.BatchNorm2d(out_channels, eps=_EPSILON, momentum=0.1)]
        super().__init__(*parts, *([] if activation is None else [activation]))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)
        for conv in (self.reduce, self.expand):  # biases are few: left as they are
            nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the scaled maps."""
        gate = F.silu(self.reduce(x.mean((2, 3), keepdim=True)), inplace=True)
        return x * self.expand(gate).sigmoid_()


class MBConv(nn.Module):
    """A mobile inverted bottleneck."""

    def __init__(self, block: layers.Block, stage: MBConvStage) -> None:
        super().__init__()
        channels = block.in_channels * stage.expansion
        parts: list[nn.Module] = []
        if stage.expansion > 1:
            parts.append(
                ConvNorm(block.in_channels, channels, 1, activation=nn.SiLU(True))  # noqa: FBT003
            )
        parts.append(
            ConvNorm(
                channels,
                channels,
                stage.kernel,
                stride=block.stride,
                groups=channels,
                activation=nn.SiLU(True),  # noqa: FBT003
            )
        )
        if block.se_hidden:
            parts.append(SqueezeExcite(channels, block.se_hidden))
        parts.append(ConvNorm(channels, block.out_channels, 1, activation=None))
        self.branch = nn.Sequential(*parts)
        self.skip = block.skip == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's maps."""
        return x + self.branch(x) if self.skip else self.branch(x)


def build(spec: ArchSpec) -> nn.Module:
    """Returns the network of a spec of MBConv stages with swish.

    Raises:
      ValueError: for any other stage, skip or activation.
    """
    parts: list[nn.Module] = []
    if spec.activation != "swish":
        raise ValueError(f"the peer knows swish alone, got {spec.activation}")
    for block in layers.blocks(spec):
        match block.spec:
            case Stem() as stem:
                conv = ConvNorm(
                    block.in_channels,
                    block.out_channels,
                    stem.kernel,
                    stride=block.stride,
                    activation=nn.SiLU(True),  # noqa: FBT003
                )
                parts.append(conv)
            case MBConvStage() as stage if block.skip in ("none", "identity"):
                parts.append(MBConv(block, stage))
            case ClassifierHead(channels=int(channels)):
                head = ConvNorm(
                    block.in_channels,
                    channels,
                    1,
                    activation=nn.SiLU(True),  # noqa: FBT003
                )
                dense = nn.Linear(channels, block.out_channels)
                bound = 1 / math.sqrt(channels)
                nn.init.uniform_(dense.weight, -bound, bound)
                nn.init.zeros_(dense.bias)
                parts += [head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense]
            case other:
                raise ValueError(f"the peer builds MBConv networks alone, got {other}")
    network = nn.Sequential(*parts)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def evaluate(
    spec: ArchSpec, batches: Batches, *, weight_decay: float, smoothing: float
) -> tuple[list[float], float, int]:
    """Trains and measures; returns losses, validation accuracy and parameters."""
    model = build(spec)
    kernels = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    losses = []
    steps = zip(batches.images, batches.labels, batches.learning_rates, strict=True)
    for images, labels, learning_rate in steps:
        for group in optimizer.param_groups:
            group["lr"] = float(learning_rate)
        loss = F.cross_entropy(model(images), labels, label_smoothing=smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    model.eval()
    correct, size = 0, batches.labels.shape[1]
    with torch.inference_mode():
        for images, labels in zip(
            batches.validation_images.split(size),
            batches.validation_labels.split(size),
            strict=True,
        ):
            correct += int((model(images).argmax(1) == labels).sum())
    num_params = sum(p.numel() for p in model.parameters())
    accuracy = correct / len(batches.validation_labels)
    return torch.stack(losses).tolist(), accuracy, num_params
