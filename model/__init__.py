"""The door to the networks."""

from .build import ARCHS, LARGE, SMALL, build_model, is_small
from .files import fit_to, load_pruned, rebuild
from .init import reinitialise
from .pretrained import pretrained_state, weights_of

__all__ = [
    "ARCHS", "LARGE", "SMALL", "build_model", "fit_to", "is_small", "load_pruned", "pretrained_state", "rebuild",
    "reinitialise", "weights_of",
]  # fmt: skip
