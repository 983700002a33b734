"""Every way to write a picture, against the picture that was written."""

import os
import struct
import threading
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from trainers.data import pixels

HEIGHT, WIDTH = 4, 256
RAMP = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))
DEEP = RAMP.astype(np.uint16) * 257
TURNS = {  # EXIF orientation: what was done to the upright picture when it was stored
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


def colours():
    """Red, green and blue bars, 30 x 90."""
    bars = np.zeros((30, 90, 3), np.uint8)
    for channel in range(3):
        bars[:, 30 * channel : 30 * (channel + 1), channel] = 220
    return bars


def write_png(path, colour_type, samples, *, chunks=()):
    """A PNG of 16 bits a sample, by the specification (W3C PNG, sections 5 and 11)."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(kind, body) for kind, body in chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_tiff(path, samples, *, bits=16, white_is_zero=False):
    """An uncompressed little-endian TIFF of one channel (TIFF 6.0, section 2)."""
    if bits == 12:  # two samples in three bytes, the high bits first
        pairs = samples.reshape(-1, 2).astype(np.uint32)
        words = (pairs[:, 0] << 12) | pairs[:, 1]
        body = b"".join(int(word).to_bytes(3, "big") for word in words)
    else:
        body = samples.astype("<u2").tobytes()
    height, width = samples.shape
    entries = [
        (256, width), (257, height), (258, bits), (259, 1),
        (262, int(not white_is_zero)), (273, 8), (277, 1), (278, height),
        (279, len(body)),
    ]  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    ifd = struct.pack("<H", len(entries)) + fields + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + ifd)


def save(mode, **options):
    return lambda path: PIL.Image.fromarray(RAMP).convert(mode).save(path, **options)


def save_deep(dtype):
    return lambda path: PIL.Image.fromarray(DEEP.astype(dtype)).save(path)


def write_pgm(largest):
    values = np.round(RAMP / 255 * largest).astype(">u2")
    header = f"P5\n{WIDTH} {HEIGHT}\n{largest}\n".encode()
    return lambda path: path.write_bytes(header + values.tobytes())


def write_grey_alpha(path):
    write_png(path, 4, np.dstack([DEEP, np.full_like(DEEP, 65535)]))


GREY = {
    "l.png": save("L"),
    "l.jpg": save("L", quality=100),
    "la.png": save("LA"),
    "la.tif": save("LA"),
    "palette.png": save("P"),
    "palette.gif": save("P"),
    "palette.bmp": save("P"),
    "grey.webp": save("L", lossless=True),
    "grey.avif": save("L", quality=100),
    "deep.png": save_deep("<u2"),
    "deep.tif": save_deep("<u2"),
    "deep-big-endian.tif": save_deep(">u2"),
    "deep.jp2": save_deep("<u2"),
    "deep.pgm": write_pgm(65535),
    "12-bits.pgm": write_pgm(4095),
    "12-bits.tif": lambda path: write_tiff(path, DEEP >> 4, bits=12),
    "white-is-zero.tif": lambda path: write_tiff(
        path, 65535 - DEEP, white_is_zero=True
    ),
    "grey-alpha-16.png": write_grey_alpha,
}


@pytest.mark.parametrize("name", GREY)
def test_grey_stays_grey_and_keeps_its_range(tmp_path, name):
    GREY[name](tmp_path / name)
    got = pixels.decode(tmp_path / name)
    assert got.shape == (HEIGHT, WIDTH, 1)
    loss = 2 if name.endswith((".jpg", ".avif")) else 1 / 16  # a level of 12 bits
    np.testing.assert_allclose(got[..., 0], RAMP, atol=loss)


def test_black_and_white_are_0_and_255(tmp_path):
    PIL.Image.fromarray(RAMP > 99).save(tmp_path / "one.png")
    got = pixels.decode(tmp_path / "one.png")[..., 0]
    np.testing.assert_array_equal(got, np.where(RAMP > 99, 255, 0))


def test_12_bits_in_a_file_of_16_keep_every_level(tmp_path):
    """Of all 4,096 none becomes another; eight bits would have kept 16 of them."""
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    PIL.Image.fromarray(levels).save(tmp_path / "levels.png")
    got = pixels.decode(tmp_path / "levels.png")
    assert len(np.unique(got)) == 4096
    np.testing.assert_allclose(got[..., 0], levels / 257, rtol=1e-6)


COLOUR = {
    "rgb.png": {},
    "rgb.tif": {},
    "rgb.webp": {"lossless": True},
    "rgb.avif": {"quality": 100, "subsampling": "4:4:4"},
    "p.png": {"mode": "P"},
    "p.gif": {"mode": "P"},
    "cmyk.tif": {"mode": "CMYK"},
    "cmyk.jpg": {"mode": "CMYK", "quality": 100},
    "ycbcr.jpg": {"mode": "YCbCr", "quality": 100, "subsampling": 0},
    "ycbcr.tif": {"mode": "YCbCr"},
}


@pytest.mark.parametrize("name", COLOUR)
def test_colour(tmp_path, name):
    options = dict(COLOUR[name])
    picture, mode = PIL.Image.fromarray(colours()), options.pop("mode", "RGB")
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / name, **options)
    got = pixels.decode(tmp_path / name).astype(int)
    assert got.shape == (30, 90, 3)
    loss = 4 if name.endswith((".jpg", ".avif")) or "ycbcr" in name else 0
    inner = np.s_[4:-4, [5, 20, 40, 50, 70, 85]]  # away from the edges of the bars
    assert np.abs(got - colours())[inner].max() <= loss


def test_lab_is_taken_back_to_srgb(tmp_path):
    srgb, lab = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
    transform = PIL.ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    shades = np.full((4, 4, 3), (180, 120, 60), np.uint8)
    picture = PIL.ImageCms.applyTransform(PIL.Image.fromarray(shades), transform)
    picture.save(tmp_path / "lab.tif")
    got = pixels.decode(tmp_path / "lab.tif").astype(int)
    assert np.abs(got - shades).max() <= 3


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_orientation_comes_out_upright(tmp_path, name, orientation):
    picture = PIL.Image.fromarray(colours()[:10])
    if name == "deep.png":
        picture = PIL.Image.fromarray(DEEP)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored = picture.transpose(TURNS[orientation])
    options = {"lossless": True} if name == "a.webp" else {}
    stored.save(tmp_path / name, exif=exif, **options)
    got = pixels.decode(tmp_path / name)
    if name == "deep.png":
        np.testing.assert_allclose(got[..., 0], RAMP, atol=0.01)
    else:
        assert got.shape == (10, 90, 3)
        assert got[5, [15, 45, 75]].argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif", "a.avif"])
def test_the_first_picture_counts(tmp_path, name):
    red, blue = (PIL.Image.new("RGB", (8, 8), c) for c in ("red", "blue"))
    red.save(tmp_path / name, save_all=True, append_images=[blue])
    assert pixels.decode(tmp_path / name)[4, 4].argmax() == 0


@pytest.mark.parametrize(
    ("mode", "colour", "want"),
    [
        # 100 of 255 parts of it, 155 parts of white: 60 * 100 / 255 + 155 = 178.5
        ("RGBA", (60, 0, 255, 100), [179, 155, 255]),
        ("RGBA", (1, 2, 3, 0), [255, 255, 255]),
        ("RGBA", (1, 2, 3, 255), [1, 2, 3]),
        ("LA", (60, 100), [179]),
        ("LA", (60, 0), [255]),
    ],
)
def test_transparency_shows_white(tmp_path, mode, colour, want):
    PIL.Image.new(mode, (3, 3), colour).save(tmp_path / "a.png")
    assert pixels.decode(tmp_path / "a.png")[1, 1].tolist() == want


@pytest.mark.parametrize(
    ("mode", "colour", "key", "want"),
    [
        ("L", 9, 9, [255]),
        ("L", 9, 8, [9]),
        ("RGB", (9, 8, 7), (9, 8, 7), [255, 255, 255]),
        ("RGB", (9, 8, 7), (9, 8, 6), [9, 8, 7]),
        ("P", 0, 0, [255]),
        ("I;16", 2570, 2570, [255]),
        ("I;16", 2570, 2571, [10]),
    ],
)
def test_the_transparent_colour_of_a_png_shows_white(tmp_path, mode, colour, key, want):
    picture = PIL.Image.new(mode, (3, 3), colour)
    picture.save(tmp_path / "a.png", transparency=key)
    assert pixels.decode(tmp_path / "a.png")[1, 1].tolist() == want


def test_premultiplied_transparency_shows_white(tmp_path):
    """TIFF's ExtraSamples 1: colour 30 at alpha 128 is 60 before, and 157 on white."""
    PIL.Image.new("RGBA", (2, 2), (30, 30, 30, 128)).save(tmp_path / "a.tif")
    field = struct.pack("<HHIH", 338, 3, 1, 2)  # ExtraSamples: 2 is unassociated
    content = (tmp_path / "a.tif").read_bytes()
    assert content.count(field) == 1
    content = content.replace(field, struct.pack("<HHIH", 338, 3, 1, 1))
    (tmp_path / "a.tif").write_bytes(content)
    got = pixels.decode(tmp_path / "a.tif")[0, 0].astype(int)
    assert np.abs(got - (30 + 127)).max() <= 1


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("a.tif", np.float32, "floating-point"),
        ("a.pfm", np.float32, "floating-point"),
        ("a.tif", np.int32, "signed or 32-bit"),
        ("a.tif", np.int16, "signed or 32-bit"),
    ],
)
def test_values_without_a_range_are_refused(tmp_path, name, dtype, kind):
    PIL.Image.fromarray(RAMP.astype(dtype)).save(tmp_path / name)
    with pytest.raises(ValueError, match=f"{kind}.*save it with 8 or 16") as caught:
        pixels.decode(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_eps_would_start_ghostscript_and_is_refused(tmp_path):
    PIL.Image.fromarray(colours()).save(tmp_path / "a.eps")
    with pytest.raises(ValueError, match="of no kind that Pillow reads"):
        pixels.decode(tmp_path / "a.eps")


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda p: p.symlink_to("/dev/zero")]
)
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "a.png")
    told = []
    thread = threading.Thread(
        target=lambda: told.append(refusal(tmp_path / "a.png")), daemon=True
    )
    thread.start()
    thread.join(timeout=20)
    assert ["must be an image" in reason for reason in told] == [True]


@pytest.mark.parametrize(
    "name",
    ["a.avif", "a.blp", "a.bmp", "a.dds", "a.gif", "a.ico", "a.jp2", "a.jpg", "a.pcx",
     "a.png", "a.ppm", "a.qoi", "a.sgi", "a.tga", "a.tif", "a.webp"],
)  # fmt: skip
def test_damaged_pictures_end_in_one_line(tmp_path, name):
    """Forty cuts and flipped bytes of each kind: an image or a ValueError."""
    rng = np.random.default_rng(0)
    path = tmp_path / name
    picture = PIL.Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    picture.convert("P" if name == "a.blp" else "RGB").save(path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(40):
        content = bytearray(
            whole[: rng.integers(len(whole)) if rng.random() < 0.3 else None]
        )
        for place in rng.integers(0, max(1, min(200, len(content))), 3):
            if place < len(content):
                content[place] = rng.integers(256)
        path.write_bytes(content)
        reason = refusal(path)
        refused += bool(reason)
        assert "\n" not in reason
    assert refused


def refusal(path):
    """What the decoder says of a file; nothing if it is an image."""
    try:
        assert pixels.decode(path).ndim == 3
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("wanted", "mode"), [(1, "RGB"), (3, "L"), (3, "I;16")])
def test_channels_are_made_to_fit(tmp_path, wanted, mode):
    """Rec. 601 luma: 0.299 of pure red, 76 of 255."""
    colour = {"RGB": (255, 0, 0), "L": 76, "I;16": 76 * 257}[mode]
    PIL.Image.new(mode, (5, 5), colour).save(tmp_path / "a.png")
    got = pixels.read(tmp_path / "a.png", 4, wanted)
    assert (got.shape, got.dtype) == ((4, 4, wanted), np.float32)
    np.testing.assert_allclose(got, 76, atol=1e-3)


def test_four_channels_keep_transparency(tmp_path):
    PIL.Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(tmp_path / "a.png")
    got = pixels.read(tmp_path / "a.png", 4, 4)
    assert got[0, 0].tolist() == [1, 2, 3, 4]
