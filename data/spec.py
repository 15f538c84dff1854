"""Description of a data set, for networks and reports."""

from dataclasses import dataclass

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DataSpec:
    """A data set and its preprocessing.

    Attributes:
        name: the set's own name; for ``npz`` and ``folder`` that of the folder.
        size: height and width of an image as the network sees it, pixels.
        mean, std: per channel, of pixels from 0 to 1.
        pad: zeros around a training image before the random crop, pixels; 0: no crop.
        flip: random horizontal flips.
        train_images: None where it is unknown before loading.
    """

    name: str
    classes: int
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False
    train_images: int | None = None
