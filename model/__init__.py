"""The public API of the networks."""

from .build import ARCHS, LARGE, SMALL, build_model, is_small
from .cost import Cost, cost_of, example
from .init import reinitialise
from .pretrained import pretrained_state, weights_of
from .rebuild import add_biases, check_fit, check_forward, check_network, check_tensors, fit_to, load_pruned, rebuild

__all__ = [
    "ARCHS",
    "LARGE",
    "SMALL",
    "Cost",
    "add_biases",
    "build_model",
    "check_fit",
    "check_forward",
    "check_network",
    "check_tensors",
    "cost_of",
    "example",
    "fit_to",
    "is_small",
    "load_pruned",
    "pretrained_state",
    "rebuild",
    "reinitialise",
    "weights_of",
]
