"""The public API of the networks."""

from .build import ARCHS, CIFAR_MODELS, TORCHVISION_MODELS, build_model, build_on_meta, is_small
from .cost import Cost, cost_of, example
from .init import reinitialize
from .pretrained import pretrained_state, weights_of
from .rebuild import add_biases, check_fit, check_forward, check_network, check_tensors, fit_to, load_pruned, rebuild

__all__ = [
    "ARCHS",
    "CIFAR_MODELS",
    "TORCHVISION_MODELS",
    "Cost",
    "add_biases",
    "build_model",
    "build_on_meta",
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
    "reinitialize",
    "weights_of",
]
