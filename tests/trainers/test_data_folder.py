"""Folders of class folders, against pictures that Pillow wrote."""

import numpy as np
import PIL.Image
import pytest

from trainers.data import catalog, memory


def paint(path, color, *, size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, color).save(path, **options)


def fill(level, num=6):
    for i in range(num):
        paint(level / "green" / f"{i}.png", (0, 200 + i, 0))
        paint(level / "blue" / f"{i}.png", (0, 0, 200 + i))


def pixel_labels(examples):
    return sorted((*map(int, image[0, 0]), label) for image, label in examples)


def green_and_blue(num=6):
    blue = [(0, 0, 200 + i, 0) for i in range(num)]
    return sorted(blue + [(0, 200 + i, 0, 1) for i in range(num)])


def test_classes_sizes_and_pixels(tmp_path):
    fill(tmp_path)
    (tmp_path / "green" / ".DS_Store").write_bytes(b"hidden")
    dataset = catalog.load(str(tmp_path), seed=0, validation=4)
    assert dataset.class_names == ("blue", "green")
    assert (dataset.channels, dataset.image_size) == (3, (4, 6))
    both = [*dataset.train, *dataset.validation]
    assert pixel_labels(both) == green_and_blue()
    assert sorted(label for _, label in dataset.validation) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"has no test split; put images in .*/test/"):
        catalog.load_test(str(tmp_path))


@pytest.mark.parametrize("test_level", ["test", "val"])
def test_one_level_beside_train_is_the_test_split(tmp_path, test_level):
    fill(tmp_path / "train")
    fill(tmp_path / test_level, num=2)
    # A search must not even decode it.
    broken = tmp_path / test_level / "blue" / "broken.png"
    broken.write_bytes(b"no picture")
    dataset = catalog.load(str(tmp_path), seed=0)
    assert pixel_labels([*dataset.train, *dataset.validation]) == green_and_blue()
    with pytest.raises(ValueError, match=r"broken\.png must be an image"):
        catalog.load_test(str(tmp_path))
    broken.unlink()
    assert pixel_labels(catalog.load_test(str(tmp_path))) == green_and_blue(2)


def test_three_levels_are_taken_as_they_are(tmp_path):
    for num, level in enumerate(("train", "val", "test"), start=1):
        fill(tmp_path / level, num=num)
    dataset = catalog.load(str(tmp_path), seed=0)
    assert pixel_labels(dataset.train) == green_and_blue(1)
    assert pixel_labels(dataset.validation) == green_and_blue(2)
    assert pixel_labels(catalog.load_test(str(tmp_path))) == green_and_blue(3)


def test_a_class_may_be_called_train(tmp_path):
    paint(tmp_path / "train" / "0.png", 1, mode="L")
    paint(tmp_path / "bus" / "0.png", 2, mode="L")
    dataset = catalog.load(str(tmp_path), seed=0, validation=1)
    assert dataset.class_names == ("bus", "train")


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path):
    paint(tmp_path / "a" / "0.png", 7, mode="L")
    paint(tmp_path / "b" / "0.png", 40_000, mode="I;16")
    dataset = catalog.load(str(tmp_path), seed=0, validation=1)
    assert dataset.channels == 1
    pixels = {
        int(image.max()) for image in (dataset.train[0][0], dataset.validation[0][0])
    }
    assert pixels == {7, 40_000 // 256}

    paint(tmp_path / "b" / "1.png", (1, 2, 3), size=(9, 9))
    dataset = catalog.load(str(tmp_path), seed=0, validation=1)
    assert (dataset.channels, dataset.image_size) == (3, None)
    grey = [
        image for image, label in [*dataset.train, *dataset.validation] if not label
    ]
    assert np.unique(grey[0]).tolist() == [7]


def test_photographs_are_turned_upright(tmp_path):
    turned = PIL.Image.Exif()
    turned[0x0112] = 6  # orientation: turn a quarter clockwise to view
    paint(tmp_path / "a" / "0.jpg", 9, size=(8, 2), mode="L", exif=turned)
    paint(tmp_path / "b" / "0.jpg", 9, size=(2, 8), mode="L")
    assert catalog.load(str(tmp_path), seed=0, validation=1).image_size == (8, 2)


def test_palettes_with_transparency_do_not_warn(tmp_path):
    paint(tmp_path / "a" / "0.png", 0, mode="P", transparency=b"\x00\x80")
    paint(tmp_path / "b" / "0.png", 0, mode="RGBA")
    assert catalog.load(str(tmp_path), seed=0, validation=1).channels == 3


def test_pictures_of_several_sizes_become_arrays(tmp_path):
    paint(tmp_path / "a" / "0.png", 10, size=(9, 30), mode="L")
    paint(tmp_path / "a" / "1.png", 20, size=(3, 3), mode="L")
    paint(tmp_path / "b" / "0.png", 30, size=(40, 5), mode="L")
    prepared = memory.prepare(catalog.load(str(tmp_path), seed=0, validation=1), 5)
    assert prepared["train"].images.shape == (2, 5, 5, 1)
    assert np.ptp(prepared["train"].images, axis=(1, 2)).max() < 1e-6


def truncated(path):
    paint(path, 3, size=(64, 64), mode="L")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def text(path):
    path.write_text("not\na picture")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [truncated, text, empty])
@pytest.mark.parametrize("name", ["bad.png", "bad.jpg", "bad.gif", "bad.tif"])
def test_a_bad_file_is_named_on_one_line_at_load(tmp_path, spoil, name):
    fill(tmp_path, num=1)
    spoil(tmp_path / "blue" / name)
    with pytest.raises(ValueError, match=r"must be an image: .*; remove or") as caught:
        catalog.load(str(tmp_path), seed=0)
    assert str(tmp_path / "blue" / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layouts_that_cannot_be_meant(tmp_path):
    with pytest.raises(ValueError, match="at least 2 classes, got 0; the layout is"):
        catalog.load(str(tmp_path), seed=0)
    fill(tmp_path / "train")
    (tmp_path / "train" / "red").mkdir()
    with pytest.raises(ValueError, match=r"must have an image, .*train/red has none"):
        catalog.load(str(tmp_path), seed=0)
    paint(tmp_path / "train" / "red" / "0.png", 1, mode="L")
    fill(tmp_path / "test")
    paint(tmp_path / "test" / "pink" / "0.png", 1, mode="L")
    with pytest.raises(ValueError, match="test has 'pink' too"):
        catalog.load_test(str(tmp_path))
