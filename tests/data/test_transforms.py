"""Random crops of single images, and normalization."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision import transforms

from data.images import load_image, load_pixels
from data.spec import IMAGENET_MEAN, IMAGENET_STD, DataSpec
from data.transforms import N_DRAWS, Normalize, crop_box, random_crop, random_resized_crop

MIDDLE = [0.5] * N_DRAWS  # the middle of areas and ratios, and no flip


def draws(n: int) -> list[list[float]]:
    return torch.rand(n, N_DRAWS, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((161, 123), Image.Resampling.BICUBIC)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return transforms.functional.pil_to_tensor(image)


def test_a_crop_box_by_hand():
    # 0.54 of 100 x 100 pixels at ratio 1: 73 x 73, in the middle of 27 free rows and columns.
    assert crop_box(100, 100, MIDDLE) == (14, 14, 73, 73)
    # The first area, all of the image at ratio 4 : 3, does not fit; the second, 0.08, does.
    assert crop_box(100, 100, [1.0, 1.0, 0.0, 0.5, *MIDDLE[4:20], 0.0, 0.999, 0.5]) == (0, 72, 28, 28)


@pytest.mark.parametrize(("height", "width", "box"), [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10))])
def test_the_centre_is_taken_where_no_crop_fits(height, width, box):
    assert crop_box(height, width, [1.0] * N_DRAWS) == box


@pytest.mark.parametrize(("height", "width"), [(375, 500), (224, 224), (500, 200), (40, 400), (3, 2), (1, 1)])
def test_crop_boxes_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(1)
    image = torch.zeros(3, height, width)
    get = transforms.RandomResizedCrop.get_params
    theirs = np.array([get(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)])
    ours = np.array([crop_box(height, width, one) for one in draws(3000)])
    assert ((ours[:, :2] >= 0) & (ours[:, :2] + ours[:, 2:] <= (height, width)) & (ours[:, 2:] > 0)).all()
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3


def test_resized_crops_are_pils_within_rounding(photograph):
    for one in draws(20):
        top, left, height, width = crop_box(123, 161, one)
        expected = as_tensor(transforms.functional.resized_crop(photograph, top, left, height, width, [64, 64]))
        expected = expected.flip(2) if one[-1] < 0.5 else expected
        found = random_resized_crop(as_tensor(photograph), 64, one, flip=True)
        assert found.shape == (3, 64, 64)
        assert (found.int() - expected.int()).abs().max() <= 1


def test_without_flips_no_image_is_flipped(photograph):
    left = as_tensor(photograph)
    left[:, :, :80], left[:, :, 80:] = 0, 255
    for one in draws(20):
        for crop in (
            random_resized_crop(left, 32, one, flip=False),
            random_crop(left, 4, one, flip=False)[:, 4:-4, 4:-4],
        ):
            assert crop[0, 0, 0] <= crop[0, 0, -1]


def test_padded_crops_take_every_position_and_both_directions():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3).expand(3, 3, 3)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    windows = [padded[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)]
    expected = {tuple(w.flatten().tolist()) for window in windows for w in (window, window.flip(2))}
    assert {tuple(random_crop(image, 1, one, flip=True).flatten().tolist()) for one in draws(500)} == expected


JPEG = {
    "4:2:0": {}, "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "progressive": {"progressive": True},
    "low quality": {"quality": 10}, "RGB": {"keep_rgb": True}, "grey": {"mode": "L"}, "CMYK": {"mode": "CMYK"},
    "rotated by EXIF": {"exif": Image.Exif()},
}  # fmt: skip
JPEG["rotated by EXIF"]["exif"][0x112] = 6


@pytest.mark.parametrize("how", JPEG.values(), ids=JPEG)
def test_jpeg_files_have_the_pixels_that_pil_reads(photograph, tmp_path, how):
    photograph.convert(how.get("mode", "RGB")).save(tmp_path / "x.jpg", **how)
    assert load_pixels(str(tmp_path / "x.jpg")).equal(as_tensor(load_image(str(tmp_path / "x.jpg"))))


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.webp", "x.gif"])
def test_other_files_have_the_pixels_that_pil_reads(photograph, tmp_path, name):
    photograph.save(tmp_path / name)
    assert load_pixels(str(tmp_path / name)).equal(as_tensor(load_image(str(tmp_path / name))))


def test_one_thread_normalizes_to_the_same_bits():
    normalize = Normalize(DataSpec("x", 2, 3, 8, IMAGENET_MEAN, IMAGENET_STD), torch.device("cpu"))
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert normalize.in_one_thread(images).equal(normalize(images))
