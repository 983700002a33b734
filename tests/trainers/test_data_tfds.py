"""TFDS sets, prepared small by its own writer and read as any stock set is."""

import contextlib
import io
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from trainers.data import catalog, fingerprint, memory
from trainers.data import tfds as source

NUM = {"train": 9, "validation": 3, "test": 4}


def picture(split, index, side=4):
    offset = {"train": 0, "validation": 100, "test": 200}[split]
    return np.full((4, side, 3), offset + index, np.uint8)


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures whose colour says which split and example they are."""

    VERSION = tfds.core.Version("1.0.0")
    image: tfds.features.FeatureConnector
    label: tfds.features.FeatureConnector = tfds.features.ClassLabel(names=["a", "b"])
    test_labels = (0, 1)

    def _info(self):
        features = {"image": self.image, "label": self.label, "id": np.int64}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):  # noqa: ARG002
        return {split: self._generate_examples(split) for split in NUM}

    def _generate_examples(self, split):
        labels = self.test_labels if split == "test" else (0, 1)
        for i in range(NUM[split]):
            yield i, {"image": self.draw(split, i), "label": labels[i % 2], "id": i}

    def draw(self, split, index):
        return picture(split, index)


class FewArrays(Builder, skip_registration=True):
    image = tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8)


class FewPngs(Builder, skip_registration=True):
    image = tfds.features.Image(shape=(None, None, 3))

    def draw(self, split, index):
        file = io.BytesIO()
        PIL.Image.fromarray(picture(split, index, side=4 + index)).save(file, "PNG")
        file.seek(0)
        return file


class FewUnlabelledTest(FewArrays, skip_registration=True):
    test_labels = (-1, -1)  # as ImageNet's


class FewNumbers(Builder, skip_registration=True):
    image = tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8)
    label = tfds.features.Scalar(dtype=np.int64)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    with contextlib.redirect_stdout(io.StringIO()):
        for builder in (FewArrays, FewPngs, FewUnlabelledTest, FewNumbers):
            builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def seen(examples):
    return sorted((int(image.max()), label) for image, label in examples)


@pytest.mark.parametrize(
    ("name", "size"),
    [("few_arrays", (4, 4)), ("few_pngs", None), ("few_arrays:1.0.0", (4, 4))],
)
def test_reads_what_was_written_without_the_test_split(data_dir, name, size):
    dataset = catalog.load(name, seed=0, data_dir=data_dir)
    assert dataset.num_examples == {"train": 6, "validation": 3}
    assert (dataset.image_size, dataset.channels) == (size, 3)
    assert dataset.class_names == ("a", "b")
    parts = [
        [split[i] for i in range(len(split))]
        for split in (dataset.train, dataset.validation)
    ]
    assert seen(parts[0] + parts[1]) == [(i, i % 2) for i in range(9)]
    test = catalog.load_test(name, data_dir=data_dir)
    assert seen(test[i] for i in range(len(test))) == [
        (200 + i, i % 2) for i in range(4)
    ]
    assert memory.prepare(dataset, 4)["train"].images.shape == (6, 4, 4, 3)


def test_fingerprints_of_the_same_files_agree_and_of_another_version_do_not(data_dir):
    first, again = (
        fingerprint.of(catalog.load("few_arrays", seed=0, data_dir=data_dir))
        for _ in range(2)
    )
    assert first == again
    assert first.num_examples == {"train": 6, "validation": 3}
    other = catalog.load("few_pngs", seed=0, data_dir=data_dir)
    assert fingerprint.of(other).digests["train"] != first.digests["train"]
    reseeded = catalog.load("few_arrays", seed=1, data_dir=data_dir)
    assert fingerprint.of(reseeded).digests != first.digests  # other records are kept


def test_the_validation_split_stands_in_for_an_unlabelled_test_split(data_dir):
    test = catalog.load_test("few_unlabelled_test", data_dir=data_dir)
    assert seen(test[i] for i in range(len(test))) == [(100, 0), (101, 1), (102, 0)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few_numbers", "few_numbers holds .*label Scalar.*for image classification"),
        ("few_arrays:2.0.0", r"which has few_arrays/1\.0\.0; name one as"),
        ("few_arrays/odd", r"which has few_arrays/1\.0\.0; name one as"),
    ],
)
def test_prepared_but_not_fit(data_dir, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        catalog.load(name, seed=0, data_dir=data_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("download", [True, False])
def test_missing_data_is_told_at_once_with_the_remedy(tmp_path, download):
    start = time.monotonic()
    with pytest.raises(
        ValueError,
        match=r"cifar10.*(tensorflow.*data_dir|data_dir.*pip install tensorflow)",
    ) as caught:
        catalog.load("cifar10", seed=0, data_dir=tmp_path, download=download)
    # TFDS alone takes minutes; importing it, seconds.
    assert time.monotonic() - start < 20
    assert "\n" not in str(caught.value)


def test_fashion_mnist_also_names_the_debian_package(tmp_path):
    with pytest.raises(ValueError, match="apt-get install dataset-fashion-mnist"):
        catalog.load("fashion_mnist", seed=0, data_dir=tmp_path)


def test_a_host_that_does_not_answer():
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/x does not answer"):
        source.check_reachable("some_set", ["http://127.0.0.1:9/x"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1", "unknown data set 'cifar1'; did you mean .*cifar10.*or the path of"),
        ("Digits", "did you mean digits"),
        ("no/such/folder", "unknown data set 'no/such/folder'; there are digits, "),
        ("", "unknown data set ''"),
        ("../x", r"unknown data set '\.\./x'"),
        ("x y\nz", r"unknown data set 'x y\\nz'"),
    ],
)
def test_unknown_names(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        catalog.load(name, seed=0, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
