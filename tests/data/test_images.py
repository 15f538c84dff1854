"""Image files: modes, 16 bits, damaged and oversized ones, found before a run or when they are read."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from helpers import one_line_refusal, run_program, write_image_folder, write_jpegs
from PIL import Image

import data.image_folder
from data import BadImageError, DataSource
from data.images import check_images, load_image, load_pixels

CPU = torch.device("cpu")
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def png_of_zeros(path, width, height):
    """Few bytes on disk, many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def saved(image, path, **more):
    image.save(path, **more)
    return str(path)


# 16 bits


def pgm_16(path, values):
    path.write_bytes(b"P5 16 16 65535\n" + values.astype(">u2").tobytes())
    return str(path)


SIXTEEN_BITS = {
    "PNG": lambda folder, values: saved(Image.fromarray(values), folder / "a.png"),
    "TIFF": lambda folder, values: saved(Image.fromarray(values), folder / "a.tif"),
    "big-endian TIFF": lambda folder, values: saved(
        Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes()), folder / "a.tif"
    ),
    "PGM": lambda folder, values: pgm_16(folder / "a.pgm", values),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_16_bit_gray_is_scaled_to_8_bits(tmp_path, kind):
    image = load_image(SIXTEEN_BITS[kind](tmp_path, RAMP.astype(np.uint16) * 257))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize(("value", "pixel"), [(0, 0), (128, 0), (129, 1), (257, 1), (32768, 128), (65535, 255)])
def test_16_bit_values_are_rounded(tmp_path, value, pixel):
    path = saved(Image.fromarray(np.full((16, 16), value, np.uint16)), tmp_path / "a.png")
    assert load_image(path).getpixel((3, 3)) == (pixel,) * 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "PA"])
def test_other_modes_are_converted_as_pil_does(tmp_path, mode):
    image = Image.fromarray(np.stack([RAMP, RAMP.T, RAMP[::-1]], axis=2)).convert(mode)
    kind = "tif" if mode in ("CMYK", "YCbCr", "PA") else "png"
    path = saved(image, tmp_path / f"a.{kind}")
    with Image.open(path) as expected:
        assert np.array_equal(np.asarray(load_image(path)), np.asarray(expected.convert("RGB")))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    image = Image.fromarray(np.stack([RAMP] * 3, axis=2)).convert("P")
    path = saved(image, tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(path).mode == "RGB"


# What cannot be read: found by the header, and when it is read.
def float_tiff(path):
    Image.fromarray(RAMP.astype(np.float32)).save(path, format="TIFF")


BAD_HEADERS = {
    "empty": (lambda path: path.write_bytes(b""), "not an image"),
    "text": (lambda path: path.write_bytes(b"not an image"), "not an image"),
    "AppleDouble": (lambda path: path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(4000)), "not an image"),
    "a web page": (lambda path: path.write_text("<html>404 not found</html>"), "not an image"),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), "not an image"),
    "a cut header": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0"), ""),
    "twice the limit of pixels": (lambda path: png_of_zeros(path, 13500, 13500), "182250000 pixels"),
    "over the limit of pixels": (lambda path: png_of_zeros(path, 10000, 10000), "100000000 pixels"),
    "floating point": (float_tiff, "floating-point"),
    "32-bit integers": (
        lambda path: Image.fromarray(RAMP.astype(np.int32) * 10**6).save(path, format="TIFF"),
        "32-bit integers",
    ),
    "gone": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_bad_file_is_named_with_the_reason(tmp_path, name):
    make, reason = BAD_HEADERS[name]
    path = tmp_path / "x.jpg"
    make(path)
    for line in (one_line_refusal(check_images, [str(path)]), one_line_refusal(load_image, str(path))):
        assert str(path) in line
        assert reason in line


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("name", [name for name in BAD_HEADERS if name != "gone"])
def test_a_bad_file_ends_the_command_before_anything_is_written(tmp_path, name, part):
    folder = write_image_folder(tmp_path / "pets", train=2, val=1)
    BAD_HEADERS[name][0](folder / part / "dog" / "x.jpg")
    ran = run_program(
        tmp_path / "run", "--dataset", "folder", "--data_path", folder, "--arch", "resnet18", "--method", "none"
    )
    (line,) = ran.err.splitlines()
    assert ran.code == 2
    assert line.startswith("main.py: error: --data_path: 1 image cannot be read")
    assert "dog/x.jpg" in line
    assert not list((tmp_path / "run").iterdir())


def test_all_bad_files_are_counted_and_the_first_ten_named(tmp_path):
    good = [str(path) for path in write_jpegs(tmp_path / "good", 5, 8)]
    bad = [tmp_path / f"bad{i:02}.jpg" for i in range(150)]
    for path in bad:
        path.write_bytes(b"x")
    line = one_line_refusal(check_images, [*good, *map(str, bad)])
    assert line.startswith("150 images cannot be read: ")
    assert [path.name in line for path in bad] == [True] * 10 + [False] * 140
    assert "good" not in line


def test_images_of_another_size_than_the_set_has_are_refused(tmp_path):
    (path,) = write_jpegs(tmp_path / "a", 1, 30)
    check_images([str(path)], size=30)
    assert "30 x 30 pixels, not 64 x 64" in one_line_refusal(lambda: check_images([str(path)], size=64))


@pytest.mark.parametrize(
    ("most", "opened"), [(100, (6, 4)), (10, (6, 4)), (7, (3, 4)), (5, (1, 4)), (4, (0, 4)), (1, (0, 4))]
)
def test_only_some_training_images_of_large_sets_are_checked(tmp_path, monkeypatch, most, opened):
    folder = write_image_folder(tmp_path / "pets")  # 6 to train on, 4 to test
    checked = []
    monkeypatch.setattr(data.image_folder, "MOST_CHECKED", most)
    monkeypatch.setattr(data.image_folder, "check_images", lambda paths, *_: checked.extend(paths))
    DataSource("folder", str(folder)).load(0, 0, CPU)
    assert tuple(sum(f"/{part}/" in path for path in checked) for part in ("train", "val")) == opened
    assert len(set(checked)) == len(checked)


# damaged after the check


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_damaged_later_is_one_line(tmp_path, workers):
    folder = write_image_folder(tmp_path / "pets")
    loaded = DataSource("folder", str(folder)).load(0, workers, CPU)
    file = folder / "train" / "dog" / "img1.JPEG"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(BadImageError) as caught:
        list(loaded.train_once())
    assert str(caught.value).startswith(f"the image {file} cannot be read: image file is truncated")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), MemoryError("no room"), SyntaxError("broken"), KeyError("x"), Exception()]
)
def test_any_decoder_error_names_its_image(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    path = saved(Image.fromarray(RAMP), tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", fail)
    line = one_line_refusal(load_image, path)
    assert path in line
    assert not line.endswith(": ")


# fuzzing

N_MUTATIONS = 150
FORMATS = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}


def mutated(raw: bytes, rng: random.Random) -> bytes:
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(len(raw), rng.choice([40, 200, len(raw)])))
        if rng.random() < 0.6:
            raw[at] = rng.randrange(256)
        elif rng.random() < 0.5:
            raw[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
        else:
            del raw[at : at + rng.randrange(1, 60)]
        raw = raw or bytearray(b"x")
    return bytes(raw)


@pytest.mark.parametrize("extension", FORMATS)
def test_mutated_images_are_read_or_refused_in_one_line(tmp_path, extension):
    content = io.BytesIO()
    Image.fromarray(np.stack([RAMP, RAMP.T, RAMP], axis=2)).save(content, format=FORMATS[extension])
    rng = random.Random(0)
    path = tmp_path / f"x.{extension}"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(N_MUTATIONS):
        path.write_bytes(mutated(content.getvalue(), rng))
        try:
            check_images([str(path)])
            image = load_image(str(path))
            assert image.mode == "RGB"
            assert load_pixels(str(path)).shape == (3, image.height, image.width)
            outcomes["read"] += 1
        except ValueError as error:
            outcomes["refused"] += str(path) in str(error)
    assert sum(outcomes.values()) == N_MUTATIONS
    assert min(outcomes.values()) > 0, outcomes
