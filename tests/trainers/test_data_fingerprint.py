"""What a fingerprint notices, and what it says."""

import dataclasses
import hashlib
import shutil

import numpy as np
import PIL.Image
import pytest

from trainers.augment import geometric
from trainers.data import catalog, fingerprint
from trainers.data.dataset import ArrayExamples, Dataset, Subset


@pytest.fixture
def pictures(tmp_path):
    """Two classes of six files each, every one of another size in bytes."""
    root = tmp_path / "pictures"
    for name, shade in (("cat", 10), ("dog", 200)):
        (root / name).mkdir(parents=True)
        for i in range(6):
            image = np.random.default_rng(shade + i).integers(
                0, shade + 1, (8, 8 + i, 3), np.uint8
            )
            PIL.Image.fromarray(image).save(root / name / f"{i}.png")
    return root


def of(root):
    return fingerprint.of(catalog.load(str(root), seed=0, validation=4))


def test_a_folder_left_alone_is_the_same_from_any_working_directory(
    pictures, monkeypatch
):
    before = of(pictures)
    monkeypatch.chdir(pictures.parent)
    assert of("./pictures") == before
    assert before.source == str(pictures)
    assert before.class_names == ("cat", "dog")
    assert before.num_examples == {"train": 8, "validation": 4}


def rename_class(root):
    (root / "dog").rename(root / "ant")


def add_class(root):
    shutil.copytree(root / "cat", root / "ant")


def add_pictures(root):
    for i in range(12):
        shutil.copy(root / "cat" / "0.png", root / "cat" / f"more{i}.png")


def rename_picture(root):
    (root / "cat" / "0.png").rename(root / "cat" / "00.png")


def swap_pictures(root):
    """Between classes: names, numbers and the sum of sizes stay."""
    (root / "cat" / "0.png").rename(root / "kept")
    (root / "dog" / "0.png").rename(root / "cat" / "0.png")
    (root / "kept").rename(root / "dog" / "0.png")


def replace_picture(root):
    shutil.copy(root / "dog" / "5.png", root / "cat" / "3.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rename_class, "class 'dog' is now called 'ant'"),
        (add_class, "class 'ant' was added"),
        (add_pictures, "12 more images (train 8, validation 4; now train 20,"),
        (rename_picture, "as many images, but not the same ones, in"),
        (swap_pictures, "as many images, but not the same ones, in"),
        (replace_picture, "as many images, but not the same ones, in"),
    ],
)
def test_a_change_is_noticed_and_named(pictures, change, told):
    before = of(pictures)
    change(pictures)
    assert told in "; ".join(fingerprint.differences(before, of(pictures)))


def test_another_folder_is_named(pictures, tmp_path):
    before = of(pictures)
    pictures.rename(tmp_path / "moved")
    found = fingerprint.differences(before, of(tmp_path / "moved"))
    assert found == [f"the data were {pictures} and are {tmp_path / 'moved'}"]


def test_a_digest_is_of_names_sizes_and_classes(pictures):
    """By hand, as the docstring has it, with the split put in order by its reader."""
    dataset = catalog.load(str(pictures), seed=0, validation=4)
    lines = ["8\n"]
    for index in dataset.train.indices:
        name, label = f"{index % 6}.png", index // 6
        path = pictures / ("cat", "dog")[label] / name
        below = f"{path.parent.name}/{name}"
        lines.append(f"{below}\0{path.stat().st_size}\0{label}\n")
    by_hand = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert fingerprint.of(dataset).digests["train"] == by_hand


def in_memory(images, labels):
    whole = ArrayExamples(images=images, labels=labels)
    return Dataset(
        name="arrays",
        description="arrays",
        class_names=("a", "b"),
        channels=1,
        image_size=(2, 2),
        augmentation=geometric.NONE,
        train=Subset(whole=whole, indices=np.array([2, 0])),
        validation=Subset(whole=whole, indices=np.array([1])),
    )


def test_one_pixel_and_one_label_of_an_array_are_noticed_in_their_split():
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    labels = np.array([0, 1, 0], np.int32)
    before = fingerprint.of(in_memory(images, labels))
    assert fingerprint.of(in_memory(images.copy(), labels.astype(np.int64))) == before
    for change in (0, 1):
        other, named = images.copy(), labels.copy()
        if change:
            named[2] = 1
        else:
            other[0, 1, 1, 0] += 1
        after = fingerprint.of(in_memory(other, named))
        assert after.digests["train"] != before.digests["train"]
        assert after.digests["validation"] == before.digests["validation"]
        assert "in train" in fingerprint.differences(before, after)[0]


def test_names_beyond_a_thousand_are_counted(pictures):
    many = dataclasses.replace(
        catalog.load(str(pictures), seed=0), class_names=[str(i) for i in range(1_500)]
    )
    before = fingerprint.of(many)
    assert (len(before.class_names), before.num_classes) == (1_000, 1_500)
    more = dataclasses.replace(before, num_classes=1_501)
    assert fingerprint.differences(before, more) == ["1500 classes became 1501"]
