"""torchvision's trained weights, by enum."""

from pathlib import PurePosixPath
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision.models as tv
from torch import Tensor

from .build import TORCHVISION_MODELS, is_small

DEFAULT = "IMAGENET1K_V1"  # ResNet50's are the paper's: 76.13 %; V2 are other weights


def weights_of(arch: str, name: str, image_size: int) -> tv.WeightsEnum:
    """The enum member `name` of `arch`.

    Raises:
        ValueError: there is none; names those there are.
    """
    if is_small(arch, image_size) or arch not in TORCHVISION_MODELS:
        raise ValueError(f"there are no weights of {arch} for images of {image_size} px; train the network first")
    enum = tv.get_model_weights(arch)
    if name not in enum.__members__:
        raise ValueError(f"{arch} has no weights {name}; there are {', '.join(enum.__members__)}")
    return enum[name]


def pretrained_state(weights: tv.WeightsEnum) -> dict[str, Tensor]:
    """The weights, downloaded on first use and checked against their hash.

    Raises:
        ValueError: they cannot be had; says which file to put where.
    """
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        file = PurePosixPath(urlparse(weights.url).path).name
        raise ValueError(
            f"{weights} could not be downloaded ({error}); "
            f"put {file}, from {weights.url}, into {torch.hub.get_dir()}/checkpoints"
        ) from None
