"""Load the base network of a run."""

import functools
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data import DataSpec
from model import (
    CIFAR_MODELS,
    TORCHVISION_MODELS,
    add_biases,
    build_model,
    check_forward,
    fit_to,
    is_small,
    is_timm,
    pretrained_foreign,
    pretrained_state,
    rebuild,
    runs_file,
    weights_of,
)
from utils.checkpoint import files
from utils.checkpoint.state import Checkpoint, ExternalWeights
from utils.checkpoint.state_dicts import conversion_notices, rename_head
from utils.config.options import Options
from utils.config.paths import find_one
from utils.config.types import error_prefix

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """Network that a run starts from.

    Attributes:
        source: file or library of the weights; None: untrained weights.
        pruned: whether the network is already cut or masked.
        kept, masks: of the pruned network, as in checkpoints.
        data: of a checkpoint of this program, the images that it was trained on, as there; else empty.
        notices: on the loading of the weights.
    """

    model: nn.Module
    source: str | None
    pruned: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def load_base_model(options: Options, spec: DataSpec) -> BaseModel:
    """Build the network of `options` for images of `spec` and load its weights.

    Raises:
        ValueError: the weights cannot be read or do not fit.
    """
    torch.manual_seed(options.seed)
    for flag in ("directly_ft_weights", "base_model_path"):
        if getattr(options, flag):
            with error_prefix(flag):
                return _load_file(options, spec, getattr(options, flag))
    model = build_model(options.arch, spec.classes, spec.channels, spec.size, not options.not_use_bn)
    if not options.pretrained:
        return BaseModel(model, None)
    with error_prefix("pretrained"):
        state, classes, source = _pretrained_weights(options, spec)
    own, notices = model.state_dict(), []
    if spec.classes != classes:
        others = [key for key in state if key in own and state[key].shape != own[key].shape]
        heads = [key for key in others if (len(state[key]), len(own[key])) == (classes, spec.classes)]
        notices.append(f"the data have {spec.classes} classes: {', '.join(heads)} start untrained")
        state |= {key: own[key] for key in heads}
    files.load_weights(model, state, source)
    return BaseModel(model, source, notices=notices)


def _pretrained_weights(options: Options, spec: DataSpec) -> tuple[dict[str, Tensor], int, str]:
    """Return the weights of ``--pretrained``, their number of classes and their source."""
    if is_timm(options.arch):
        state, classes = pretrained_foreign(options.arch, spec.channels)
        return state, classes, f"timm's {options.arch.removeprefix('timm/')}"
    weights = weights_of(options.arch, options.pretrained or "", spec.size)
    return pretrained_state(weights), len(weights.meta["categories"]), f"torchvision's {weights}"


def _load_file(options: Options, spec: DataSpec, pattern: str) -> BaseModel:
    path = find_one(pattern)
    arguments = (options.arch, spec.classes, spec.channels, spec.size, not options.not_use_bn)
    dense = functools.cache(lambda: build_model(*arguments))  # checkpoints of ours do without
    content = files.read(path, options.trust_checkpoint, options.weights_key, lambda: dense().state_dict())
    if isinstance(content, ExternalWeights):
        return _load_external(options, spec, path, content, dense())
    stored = content.options
    if stored["arch"] != options.arch:
        raise ValueError(f"{path} holds a {stored['arch']}, not a {options.arch}: pass --arch {stored['arch']}")
    _check_image_spec(content, spec, path)
    if stored["not_use_bn"] != options.not_use_bn:
        advice = "pass" if stored["not_use_bn"] else "remove"
        raise ValueError(f"{path} differs from this command in --not_use_bn: {advice} it")
    notices = conversion_notices(content.model, path)
    if options.weights_key is not None:
        notices.append("no effect on a checkpoint of this program: --weights_key")
    return replace(_rebuild(content, path), notices=notices)


def _rebuild(checkpoint: Checkpoint, source: str | Path) -> BaseModel:
    model = rebuild(checkpoint.to_file(), source)
    return BaseModel(model, str(source), checkpoint.is_pruned, checkpoint.kept, checkpoint.masks, checkpoint.data)


def _load_external(
    options: Options, spec: DataSpec, path: Path, content: ExternalWeights, model: nn.Module
) -> BaseModel:
    state, renamed = rename_head(content.model, model.state_dict(), path)
    if options.not_use_bn:
        add_biases(model, state)
    dense = sum(p.numel() for p in model.parameters())
    if options.trust_checkpoint:  # it may be pruned: fit the network to its shapes
        fit_to(model, state)
    files.load_weights(model, state, str(path))
    outputs = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    if outputs not in ([], [spec.classes]):
        raise ValueError(f"{path} has {outputs[0]} classes; {spec.name} has {spec.classes}")
    pruned = sum(p.numel() for p in model.parameters()) < dense
    if pruned:
        check_forward(model, asdict(spec), path)
    return BaseModel(model, str(path), pruned, notices=content.notices + renamed + conversion_notices(state, path))


def log_notices(notices: list[str]) -> None:
    for notice in notices:
        log.warning("notice: %s", notice)


def resumed_model(checkpoint: Checkpoint, spec: DataSpec, source: str) -> BaseModel:
    """Rebuild the network of a run's checkpoint, and drop the weights from `checkpoint`.

    Raises:
        ValueError: classes, channels or size differ from `spec`.
    """
    _check_image_spec(checkpoint, spec, source)
    base = _rebuild(checkpoint, source)
    checkpoint.model = {}
    return base


def _check_image_spec(checkpoint: Checkpoint, spec: DataSpec, source: str | Path) -> None:
    stored, actual = (
        tuple(of[key] for key in ("classes", "channels", "size")) for of in (checkpoint.data, asdict(spec))
    )
    if stored != actual:
        raise ValueError(
            f"{source} was made for {checkpoint.data.get('name', 'other images')}: "
            f"classes, channels and size {stored}; {spec.name} has {actual}"
        )


def family_notice(options: Options, spec: DataSpec) -> list[str]:
    """Return a notice if the network is made for images of another size."""
    if is_timm(options.arch) or runs_file(options.arch):
        return []
    small = is_small(options.arch, spec.size)
    if small and options.arch not in TORCHVISION_MODELS and spec.size > 64:
        return [f"{options.arch} is for small images; {spec.name} has {spec.size} px"]
    if not small and options.arch not in CIFAR_MODELS and spec.size <= 64:
        return [f"{options.arch} is torchvision's, for larger images; {spec.name} has {spec.size} px"]
    return []
