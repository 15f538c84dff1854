"""Image files: header checks, and pixels as 8-bit RGB."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from simplejpeg import decode_jpeg, decode_jpeg_header
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from .tree import counted, first_ten

THREADS = 16  # opening files waits for the disk
JPEG = b"\xff\xd8\xff"  # the first bytes of such a file
CHUNK = 64  # files that a thread takes at a time


class BadImageError(ValueError):
    """A file that is not a readable image."""


def load_image(path: str) -> Image.Image:
    """Read an image as 8-bit RGB.

    16-bit grey is scaled to 8 bit, value / 257 rounded: PIL's own conversion would make it white. All other modes are
    converted as PIL does.

    Raises:
        BadImageError: the file cannot be read, is damaged or too large, or has pixels that are refused.
    """
    try:
        with _strict_warnings(), open(path, "rb") as file, Image.open(file) as image:
            _refuse_mode(image)
            return _to_rgb(image)
    except Exception as error:  # PIL's decoders raise anything on a damaged file
        raise BadImageError(f"the image {path} cannot be read: {_reason(error)}") from None


def load_pixels(path: str) -> Tensor:
    """Read an image as 8-bit RGB, (3, height, width).

    JPEG files are decoded by libjpeg-turbo itself, to PIL's pixels in less time; everything else, and every error, is
    left to ``load_image``.

    Raises:
        BadImageError: as ``load_image``.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(JPEG))
            content = start + file.read() if start == JPEG else b""
        if content:
            height, width, color, _ = decode_jpeg_header(content)
            if color in ("Gray", "YCbCr", "RGB") and height * width <= (Image.MAX_IMAGE_PIXELS or 0):
                return torch.from_numpy(decode_jpeg(content)).permute(2, 0, 1)
    except (OSError, ValueError):
        pass
    return pil_to_tensor(load_image(path))


def check_images(paths: list[str], size: int | None = None, show_progress: bool = True) -> None:
    """Check the headers of image files.

    Args:
        size: height and width that they must have, pixels; None: any.

    Raises:
        ValueError: some are not images, have too many pixels, or pixels that are refused; names them.
    """
    Image.init()  # once, here: threads would race for the list of formats
    chunks = [paths[at : at + CHUNK] for at in range(0, len(paths), CHUNK)]
    bar = tqdm(total=len(paths), desc="checking images", delay=2, leave=False, disable=None if show_progress else True)
    faults = []
    with _strict_warnings(), ThreadPoolExecutor(THREADS) as pool, bar:
        try:
            for chunk, found in zip(chunks, pool.map(partial(_faults, size=size), chunks), strict=True):
                faults += found
                bar.update(len(chunk))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # at a signal
    if faults:
        raise ValueError(f"{counted(len(faults), 'image')} cannot be read: {first_ten(faults)}; remove or replace them")


def _faults(paths: list[str], size: int | None) -> list[str]:
    """Files of `paths` that cannot be read, each with the reason."""
    faults = []
    for path in paths:
        try:
            with open(path, "rb") as file, Image.open(file) as image:
                _refuse_mode(image)
                if size and image.size != (size, size):
                    raise ValueError("{} x {} pixels, not {} x {}".format(*image.size, size, size))
        except Exception as error:  # as in load_image
            faults.append(f"{path} ({_reason(error)})")
    return faults


@contextmanager
def _strict_warnings() -> Iterator[None]:
    """Too many pixels are an error; PIL's remarks on metadata are of no use here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _refuse_mode(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers (mode F); save it with 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # in these two 16 bits, whose range is known
        raise ValueError("its pixels are 32-bit integers (mode I); save it with 8 or 16 bits")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """Describe an error in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return str(error).partition(", could be")[0]  # the number of pixels, and the limit
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
