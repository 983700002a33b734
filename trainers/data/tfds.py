"""Image classification sets of TensorFlow Datasets, read without TensorFlow.

A set that was prepared in array_record format is read by index. Preparing one of the
stock sets needs TensorFlow.
"""

import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.augment import geometric
from trainers.data.dataset import DataSource, Examples, Image
from trainers.runtime import optional

# Sets of signs, which a mirror makes into other signs or into none.
_NOT_MIRRORED = (
    *("mnist", "emnist", "kmnist", "binarized_mnist", "omniglot"),
    *("svhn_cropped", "mnist_corrupted", "quickdraw_bitmap", "cmaterdb"),
)

_NAME = re.compile(r"[a-z]\w*(/[\w.\-]+)?(:\d+\.\d+\.\d+)?")
_PROBE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TfdsExamples:
    """Records of a prepared split; `source` is TFDS's random-access reader."""

    source: Sequence[Any]
    image_key: str
    label_key: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        record = self.source[index]
        return np.asarray(record[self.image_key]), int(record[self.label_key])

    def version(self) -> str:
        """Returns the set's name with its configuration, version and split."""
        source: Any = self.source
        return f"{source.dataset_info.full_name} {source.split}"

    def files(self) -> list[str]:
        """Returns the files that hold the records, in order."""
        source: Any = self.source
        return [
            str(path) for path in source.dataset_info.splits[source.split].filepaths
        ]


def names() -> list[str]:
    """Returns the names of TFDS's stock sets, whatever they are for."""
    import tensorflow_datasets as tfds  # over a second

    return tfds.list_builders(with_community_datasets=False)


def default_dir() -> pathlib.Path:
    """Returns the folder that TFDS prepares into where none is given."""
    default = os.path.expanduser("~/tensorflow_datasets")  # also without a home
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR", default))


def is_prepared(name: str, data_dir: pathlib.Path) -> bool:
    """Whether some version of `name` has been prepared in `data_dir`."""
    if _NAME.fullmatch(name) is None:
        return False
    return next((data_dir / _base(name)).glob("**/dataset_info.json"), None) is not None


def is_stock(name: str) -> bool:
    """Whether TFDS knows how to prepare `name`."""
    return _NAME.fullmatch(name) is not None and _base(name) in names()


def read(name: str, *, data_dir: pathlib.Path) -> DataSource:
    """Returns the set `name` (or `name/config:version`) prepared in `data_dir`.

    Raises:
      ValueError: if that version is not there, it is prepared in a format without
        random access, or it is not for image classification.
    """
    from tensorflow_datasets.core import read_only_builder, registered

    # It advises OpenCV, once a process, at the first image.
    logging.getLogger("absl").addFilter(_is_not_about_opencv)
    try:  # its types know neither the keys of features nor the name of a split
        builder: Any = read_only_builder.builder_from_files(name, data_dir=data_dir)
    except registered.DatasetNotFoundError as error:
        found = sorted(
            str(path.parent.relative_to(data_dir))
            for path in (data_dir / _base(name)).glob("**/dataset_info.json")
        )
        raise ValueError(
            f"{name!r} must be prepared in {data_dir}, which has"
            f" {', '.join(found) or 'nothing of that name'}; name one as"
            " name/config:version"
        ) from error
    info = builder.info
    image_key, label_key = _keys(name, info)
    label_feature = info.features[label_key]
    height, width, channels = info.features[image_key].shape

    def examples(split: str) -> Examples:
        try:
            source = builder.as_data_source(split=split)
        except NotImplementedError as error:
            raise ValueError(
                f"{name} must be prepared in array_record format, got"
                f" {info.file_format.value} in {builder.data_dir}; remove it"
                " and prepare it again, or give another data_dir"
            ) from error
        return TfdsExamples(source=source, image_key=image_key, label_key=label_key)

    if "train" not in info.splits:
        raise ValueError(
            f"a data set must have a split called train, {name} has"
            f" {', '.join(info.splits)}"
        )
    training = examples("train")
    size = None if None in (height, width) else (height, width)
    pixel_size = "various sizes" if size is None else f"{height}x{width}"
    kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    mirrored = _base(name) not in _NOT_MIRRORED
    return DataSource(
        description=f"{name}: {len(training):,} training images, {pixel_size}, {kind},"
        f" {label_feature.num_classes} classes, from TFDS in {data_dir}",
        class_names=tuple(label_feature.names),
        channels=channels,
        image_size=size,
        augmentation=dataclasses.replace(geometric.LIGHT, flip=mirrored),
        training=training,
        labels=None,
        validation=None,
        read_test=lambda: _test(name, info.splits, examples),
    )


def prepare(name: str, *, data_dir: pathlib.Path) -> None:
    """Downloads the stock set `name` and writes it to `data_dir` as array_record.

    Raises:
      ValueError: before any work, if TensorFlow is not installed, the files that one
        has to fetch oneself are not there, or the download's host does not answer.
    """
    if lack := optional.missing("tensorflow"):
        raise ValueError(
            f"preparing {name} {lack}, or prepare it elsewhere and give its data_dir"
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = data_dir / "downloads" / "manual"
        if not manual.is_dir() or not any(manual.iterdir()):
            steps = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
            raise ValueError(
                f"{name} must be fetched by hand into {manual}, which is empty: {steps}"
            )
    else:
        check_reachable(name, list(builder.url_infos or ()))
    builder.download_and_prepare()


def check_reachable(name: str, urls: Sequence[str]) -> None:
    """Asks the host of the first of `urls` for an answer, whatever it is.

    TFDS itself gives up only after minutes of retries.

    Raises:
      ValueError: if there is no answer within five seconds.
    """
    import requests

    if not urls:
        return
    try:
        requests.head(urls[0], timeout=_PROBE_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise ValueError(
            f"{name} must be downloaded and {urls[0]} does not answer"
            f" ({type(error).__name__}); check the network, or prepare it elsewhere"
            " and give its data_dir"
        ) from error


def _base(name: str) -> str:
    return re.split("[/:]", name)[0]


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Returns the features that hold the image and its class."""
    import tensorflow_datasets as tfds

    features = dict(info.features)
    keys = info.supervised_keys
    if keys is None or set(map(str, keys)) - features.keys():
        keys = ("image", "label")
    image, label = (features.get(key) for key in keys[:2])
    if (
        len(shape := getattr(image, "shape", ())) != 3  # noqa: PLR2004
        or shape[-1] is None
        or getattr(image, "np_dtype", None) != np.uint8
        or not isinstance(label, tfds.features.ClassLabel)
    ):
        held = ", ".join(f"{k} {type(f).__name__}" for k, f in features.items())
        raise ValueError(
            "a data set must hold an 8-bit image, its channels known, and a class"
            f" label; {name} holds {held}; choose one for image classification"
        )
    return keys[0], keys[1]


def _test(name: str, splits: Any, examples: Any) -> Examples:
    # ImageNet's own test split has no labels (they are -1): its validation split is
    # what the papers report, and the reason why validation is carved from train.
    for split in ("test", "validation"):
        if split in splits and (found := examples(split))[0][1] >= 0:
            return found
    raise ValueError(
        f"{name} has no labelled test split, it has {', '.join(splits)}; nothing can"
        " be measured outside the training data"
    )


def _is_not_about_opencv(record: logging.LogRecord) -> bool:
    return "OpenCV is not installed" not in str(record.msg)
