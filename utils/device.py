"""Where to compute."""

import torch


def device_of(name: str) -> torch.device:
    """``auto``: the GPU if there is one.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU here; --device cpu or auto works")
    return torch.device(name)
