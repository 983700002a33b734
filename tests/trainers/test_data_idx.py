"""The idx parser on bytes made by hand, and Fashion-MNIST where it is installed."""

import functools
import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data import catalog, idx, memory

TWO_IMAGES = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(12))
TWO_LABELS = bytes.fromhex("00000801 00000002 0903")


gzipped = functools.partial(gzip.compress, mtime=0)  # names of tests stay the same


def write(folder, part, images=TWO_IMAGES, labels=TWO_LABELS):
    for name, content in (("images-idx3", images), ("labels-idx1", labels)):
        path = folder / f"{part}-{name}-ubyte.gz"
        path.write_bytes(gzip.compress(content))


def test_bytes_by_hand():
    want = [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert idx.parse(TWO_IMAGES).tolist() == want
    assert idx.parse(TWO_LABELS).tolist() == [9, 3]


@given(st.integers(0, len(TWO_IMAGES) - 1), st.binary(max_size=3))
def test_cut_or_lengthened_files_are_refused(cut, more):
    with pytest.raises(ValueError, match=r"it must|its header|its shape"):
        idx.parse(TWO_IMAGES[:cut])
    if more:
        with pytest.raises(ValueError, match="needs 12 bytes, got"):
            idx.parse(TWO_IMAGES + more)


@given(st.binary(max_size=40))
def test_any_bytes_give_an_array_or_a_value_error(content):
    try:
        array = idx.parse(content)
    except ValueError:
        return
    assert content[:3] == b"\0\0\x08"
    assert content.endswith(array.tobytes())
    assert struct.pack(f">{array.ndim}I", *array.shape) in content


def test_reads_a_folder_and_leaves_the_test_files_alone(tmp_path):
    for part in ("train", "t10k"):
        write(tmp_path, part, labels=TWO_LABELS[:-1] + TWO_LABELS[-2:-1])  # both 9
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"not read by a search")
    dataset = catalog.load("fashion_mnist", seed=0, validation=1, data_dir=tmp_path)
    assert (dataset.image_size, dataset.channels, dataset.num_classes) == (
        (2, 3),
        1,
        10,
    )
    images = {
        int(image[0, 0, 0]) for image in map(first, (dataset.train, dataset.validation))
    }
    assert images == {0, 6}
    with pytest.raises(ValueError, match=r"t10k-images.*must be a gzipped idx file"):
        catalog.load_test("fashion_mnist", data_dir=tmp_path)


def first(examples):
    return examples[0][0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", gzipped(TWO_IMAGES)[:-9], "ended before"),
        ("train-images-idx3-ubyte.gz", b"GIF89a", "Not a gzipped file"),
        (
            "train-labels-idx1-ubyte.gz",
            gzipped(TWO_IMAGES),
            r"\[2, 2, 3\]; fetch",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            gzipped(bytes.fromhex("00000801 00000002 0a03")),
            "another data set",
        ),
    ],
)
def test_broken_files_are_named_on_one_line(tmp_path, file, content, message):
    for part in ("train", "t10k"):
        write(tmp_path, part)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        catalog.load("fashion_mnist", seed=0, data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    not idx.has_files(idx.DEBIAN_DIR),
    reason=f"needs Fashion-MNIST: apt-get install {idx.DEBIAN_PACKAGE}",
)
def test_fashion_mnist_is_the_published_one():
    # https://github.com/zalandoresearch/fashion-mnist: 60,000 and 10,000 images of
    # 28x28, as many of each of ten classes.
    parts = {
        part: idx.read_examples(idx.DEBIAN_DIR, part) for part in ("train", "t10k")
    }
    assert parts["train"].images.shape == (60_000, 28, 28, 1)
    assert parts["t10k"].images.shape == (10_000, 28, 28, 1)
    assert np.bincount(parts["train"].labels).tolist() == [6_000] * 10
    assert np.bincount(parts["t10k"].labels).tolist() == [1_000] * 10
    # Mean and deviation that the README of many a port gives: 0.2860 and 0.3530.
    mean, std = memory.moments(parts["train"].images)
    assert (mean / 255).round(4).tolist() == [0.2860]
    assert (std / 255).round(4).tolist() == [0.3530]

    dataset = catalog.load("fashion_mnist", seed=0, data_dir=idx.DEBIAN_DIR)
    assert dataset.num_examples == {"train": 50_000, "validation": 10_000}
