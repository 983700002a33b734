"""Folders of class folders, against pictures that Pillow wrote."""

import os
import shutil
import unicodedata

import numpy as np
import PIL.Image
import pytest

from trainers.data import catalog, folder, memory

# Shades of the pictures that seed 0 holds out of `fill`'s twelve.
CARVED = [202, 204, 201, 203]


def paint(path, color, *, size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, color).save(path, **options)


def fill(level, num=6):
    for i in range(num):
        paint(level / "green" / f"{i}.png", (0, 200 + i, 0))
        paint(level / "blue" / f"{i}.png", (0, 0, 200 + i))


def twice(level):
    """Doubles each file, so that each class can be trained and validated."""
    for path in [*level.glob("*/*")]:
        shutil.copy(path, path.with_stem(f"{path.stem} again"))


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


SPLITS = [
    ("train", "val", "test"),
    ("Train", "Valid", "Test"),
    ("TRAINING", "validation", "Testing"),
    ("seg_train", "seg_val", "seg_test"),
    ("training_set", "validation-set", "test_set"),
]


@pytest.mark.parametrize(("train", "_", "test"), SPLITS)
def test_the_test_split_is_left_alone(tmp_path, train, _, test):
    fill(tmp_path / train)
    fill(tmp_path / test, num=2)
    # A search must not even decode it.
    broken = tmp_path / test / "blue" / "broken.png"
    broken.write_bytes(b"no picture")
    dataset = catalog.load(str(tmp_path), seed=0)
    assert f"; validated on a share of them, tested on {test}/" in dataset.description
    assert pixel_labels([*dataset.train, *dataset.validation]) == green_and_blue()
    with pytest.raises(ValueError, match=r"broken\.png must be an image"):
        catalog.load_test(str(tmp_path))
    broken.unlink()
    assert pixel_labels(catalog.load_test(str(tmp_path))) == green_and_blue(2)


@pytest.mark.parametrize("levels", SPLITS)
def test_three_levels_are_taken_as_they_are(tmp_path, levels):
    for num, level in enumerate(levels, start=1):
        fill(tmp_path / level, num=num)
    dataset = catalog.load(str(tmp_path), seed=0)
    assert f"; validated on {levels[1]}/, tested on {levels[2]}/" in dataset.description
    assert pixel_labels(dataset.train) == green_and_blue(1)
    assert pixel_labels(dataset.validation) == green_and_blue(2)
    assert pixel_labels(catalog.load_test(str(tmp_path))) == green_and_blue(3)


@pytest.mark.parametrize(("train", "val", "_"), SPLITS)
def test_val_alone_validates_unless_a_number_is_held_out(tmp_path, train, val, _):
    fill(tmp_path / train)
    fill(tmp_path / val, num=2)
    dataset = catalog.load(str(tmp_path), seed=0)
    assert f"; validated on {val}/, no test split" in dataset.description
    assert pixel_labels(dataset.train) == green_and_blue()
    assert pixel_labels(dataset.validation) == green_and_blue(2)
    with pytest.raises(ValueError, match="has no test split"):
        catalog.load_test(str(tmp_path))
    carved = catalog.load(str(tmp_path), seed=0, validation=4)
    assert f"a share of them instead of {val}/" in carved.description
    assert pixel_labels([*carved.train, *carved.validation]) == green_and_blue()


def test_the_seed_carves_what_it_always_carved(tmp_path):
    """Written down before links and hidden files were minded."""
    fill(tmp_path)
    dataset = catalog.load(str(tmp_path), seed=0)
    held_out = [max(image[0, 0].tolist()) for image, _ in dataset.validation]
    assert held_out == CARVED


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus"):
        for shade in (1, 2):
            paint(tmp_path / name / f"{shade}.png", shade, mode="L")
    dataset = catalog.load(str(tmp_path), seed=0, validation=2)
    assert dataset.class_names == ("bus", "train")
    assert "; the class 'train' is called like a split" in dataset.description


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path):
    paint(tmp_path / "a" / "0.png", 7, mode="L")
    paint(tmp_path / "b" / "0.png", 40_000, mode="I;16")
    twice(tmp_path)
    dataset = catalog.load(str(tmp_path), seed=0, validation=2)
    assert dataset.channels == 1
    shades = sorted(float(image.max()) for image, _ in dataset.train)
    assert shades == [7, pytest.approx(40_000 / 257)]

    paint(tmp_path / "b" / "1.png", (1, 2, 3), size=(9, 9))
    dataset = catalog.load(str(tmp_path), seed=0, validation=2)
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
    paint(tmp_path / "b" / "1.jpg", 99, size=(2, 8), mode="L")
    twice(tmp_path)
    assert catalog.load(str(tmp_path), seed=0, validation=2).image_size == (8, 2)


def test_palettes_with_transparency_do_not_warn(tmp_path):
    paint(tmp_path / "a" / "0.png", 0, mode="P", transparency=b"\x00\x80")
    paint(tmp_path / "b" / "0.png", (1, 2, 3, 255), mode="RGBA")
    twice(tmp_path)
    assert catalog.load(str(tmp_path), seed=0, validation=2).channels == 3


def test_pictures_of_several_sizes_become_arrays(tmp_path):
    paint(tmp_path / "a" / "0.png", 10, size=(9, 30), mode="L")
    paint(tmp_path / "a" / "1.png", 20, size=(3, 3), mode="L")
    paint(tmp_path / "b" / "0.png", 30, size=(40, 5), mode="L")
    paint(tmp_path / "b" / "1.png", 40, size=(5, 5), mode="L")
    prepared = memory.prepare(catalog.load(str(tmp_path), seed=0, validation=1), 5)
    assert prepared["train"].images.shape == (3, 5, 5, 1)
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


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints/0-checkpoint.png",
        "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/blue/._0.png",
        "deeper/.thumbnails/0.png",
        "Thumbs.db",
        "desktop.ini",
        "._0.png",
    ],
)
def test_hidden_and_system_files_are_passed_over_and_counted(tmp_path, hidden):
    fill(tmp_path)
    for name in ("green", "blue"):
        paint(tmp_path / name / hidden, "red", format="PNG")
    dataset = catalog.load(str(tmp_path), seed=0)
    assert "; passed over: hidden or system files (2)" in dataset.description
    assert pixel_labels([*dataset.train, *dataset.validation]) == green_and_blue()


def test_links_are_followed_once(tmp_path):
    """What lies elsewhere counts; loops and what is here already do not."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    fill(data)
    paint(elsewhere / "more" / "red.png", (250, 0, 0))
    paint(elsewhere / "one.png", (0, 0, 250))
    os.symlink(elsewhere / "more", data / "green" / "more")
    os.symlink(data / "green" / "more", data / "green" / "more again")
    os.symlink(elsewhere / "one.png", data / "blue" / "one.png")
    os.symlink("one.png", data / "blue" / "one again.png")
    os.symlink(data / "blue" / "0.png", data / "green" / "blue.png")
    os.symlink(data, data / "green" / "loop")
    os.symlink(tmp_path / "nowhere", data / "green" / "dangling.png")
    dataset = catalog.load(str(data), seed=0)
    want = sorted([*green_and_blue(), (250, 0, 0, 1), (0, 0, 250, 0)])
    assert pixel_labels([*dataset.train, *dataset.validation]) == want
    assert "links to nothing (1)" in dataset.description
    assert "links to what is read already (4)" in dataset.description


def test_links_between_folders_do_not_multiply(tmp_path):
    """Each of 25 folders links to the next twice: 2^25 ways to the last."""
    data, away = tmp_path / "data", tmp_path / "away"
    fill(data, num=2)
    for i in range(25):
        (away / str(i)).mkdir(parents=True)
        for name in "ab":
            os.symlink(away / str(i + 1), away / str(i) / name)
    paint(away / "25" / "last.png", (250, 0, 0))
    os.symlink(away / "0", data / "blue" / "away")
    dataset = catalog.load(str(data), seed=0)
    assert sum(dataset.num_examples.values()) == 5


def test_what_is_not_read_is_said(tmp_path):
    fill(tmp_path / "train")
    paint(tmp_path / "seg_pred" / "0.png", "red")
    paint(tmp_path / "test" / "0.png", "red")
    (tmp_path / "labels.csv").write_text("x")
    told = catalog.load(str(tmp_path), seed=0).description
    assert (
        "no test split; not read: 'seg_pred', 'test' (no class folders in it)" in told
    )
    assert "files beside the class folders (1)" in told


def test_sizes_that_were_not_looked_at_are_not_claimed(tmp_path, monkeypatch):
    fill(tmp_path, num=6)
    monkeypatch.setattr(folder, "_CHECKED", 5)
    dataset = catalog.load(str(tmp_path), seed=0)
    assert "4x6 (5 evenly spaced ones were looked at), RGB" in dataset.description
    assert dataset.image_size is None


def test_names_that_cannot_be_told_apart_or_stored(tmp_path):
    composed, apart = (unicodedata.normalize(f, "caf\u00e9") for f in ("NFC", "NFD"))
    for name in (composed, "tea"):
        paint(tmp_path / "train" / name / "0.png", "red")
    for name in (apart, "tea"):
        paint(tmp_path / "test" / name / "0.png", "red")
    with pytest.raises(ValueError, match=r"got 'caf\\xe9' and 'cafe\\u0301'.*rename"):
        catalog.load(str(tmp_path), seed=0)
    shutil.rmtree(tmp_path / "test")
    paint(tmp_path / "train" / apart / "0.png", "red")
    with pytest.raises(ValueError, match=r"got .*cafe.*rename one"):
        catalog.load(str(tmp_path), seed=0)
    shutil.rmtree(tmp_path / "train" / apart)
    os.mkdir(os.fsencode(tmp_path / "train") + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"must be UTF-8.*rename 'caf\\udce9'"):
        catalog.load(str(tmp_path), seed=0)


def test_classes_with_too_few_images_are_named_or_refused(tmp_path):
    """Of 13 images 4 are held out: of 6, 6 and 1 in a class 1.8, 1.8 and 0.3."""
    fill(tmp_path)
    paint(tmp_path / "rare" / "0.png", "red")
    told = catalog.load(str(tmp_path), seed=0).description
    assert told.endswith("; too few images to validate on: 'rare'")
    with pytest.raises(ValueError, match=r"took all of 'rare': add .* fewer than 9"):
        catalog.load(str(tmp_path), seed=0, validation=9)  # 4.2, 4.2 and 0.7
    shutil.rmtree(tmp_path / "green")
    shutil.rmtree(tmp_path / "blue")
    paint(tmp_path / "other" / "0.png", "blue")
    with pytest.raises(ValueError, match="takes at least 3, got 2; add images"):
        catalog.load(str(tmp_path), seed=0)


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        (["Test/a", "Test/b", "valid/a"], "a split needs a folder called train"),
        (["train", "test"], "'test', 'train' in .* are called like splits"),
        (["Train/a", "TRAIN/a"], "one folder may be the train split, got 'TRAIN', "),
        (["data/train/a", "data/train/b"], "got 1; .*did you mean .*/data?"),
    ],
)
def test_splits_that_cannot_be_meant(tmp_path, levels, told):
    for level in levels:
        paint(tmp_path / level / "0.png", "red")
    with pytest.raises(ValueError, match=told):
        catalog.load(str(tmp_path), seed=0)


def test_images_that_all_show_one_colour_are_refused(tmp_path):
    for name in ("a", "b"):
        for i in range(3):
            paint(tmp_path / name / f"{i}.png", 255, mode="L")
    with pytest.raises(ValueError, match=r"must differ in some pixel, and all of 6 in"):
        catalog.load(str(tmp_path), seed=0)


def test_a_pipe_in_a_class_is_refused_at_once(tmp_path):
    fill(tmp_path)
    os.mkfifo(tmp_path / "blue" / "pipe.png")
    with pytest.raises(
        ValueError, match=r"pipe\.png must be an image: it is no ordinary"
    ):
        catalog.load(str(tmp_path), seed=0)


def test_the_files_are_known_by_class_and_name(tmp_path, monkeypatch):
    fill(tmp_path / "set", num=2)
    monkeypatch.chdir(tmp_path)
    files = catalog.load("./set", seed=0).train.whole
    assert [str(path) for path in files.paths] == [
        f"set/{name}/{i}.png" for name in ("blue", "green") for i in range(2)
    ]
