"""The public API of the networks."""

from .build import ARCHS, CIFAR_MODELS, TORCHVISION_MODELS, build_model, build_on_meta, is_small
from .cost import Cost, cost_of, example
from .foreign import Preprocessing, check_foreign, is_timm, preprocessing_of, pretrained_foreign, runs_file
from .forward import check_forward, check_outputs
from .init import reinitialize
from .pretrained import pretrained_state, weights_of
from .rebuild import (
    add_biases,
    check_fit,
    check_network,
    check_tensors,
    check_values,
    fit_to,
    load_pruned,
    rebuild,
)

__all__ = [
    "ARCHS",
    "CIFAR_MODELS",
    "TORCHVISION_MODELS",
    "Cost",
    "Preprocessing",
    "add_biases",
    "build_model",
    "build_on_meta",
    "check_fit",
    "check_foreign",
    "check_forward",
    "check_network",
    "check_outputs",
    "check_tensors",
    "check_values",
    "cost_of",
    "example",
    "fit_to",
    "is_small",
    "is_timm",
    "load_pruned",
    "preprocessing_of",
    "pretrained_foreign",
    "pretrained_state",
    "rebuild",
    "reinitialize",
    "runs_file",
    "weights_of",
]
