"""The door to the networks."""

from .build import ARCHS, LARGE, SMALL, build_model, is_small
from .files import add_biases, check_fit, check_forward, check_network, check_tensors, fit_to, load_pruned, rebuild
from .init import reinitialise
from .pretrained import pretrained_state, weights_of

__all__ = [
    "ARCHS", "LARGE", "SMALL", "add_biases", "build_model", "check_fit", "check_forward", "check_network",
    "check_tensors", "fit_to", "is_small", "load_pruned", "pretrained_state", "rebuild", "reinitialise", "weights_of",
]  # fmt: skip
