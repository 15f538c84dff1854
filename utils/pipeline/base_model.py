"""The network that a run starts from, with its weights."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
    """Attributes:
    source: where the weights come from, in words; None: untrained weights.
    pruned: whether the network is already cut or masked.
    kept, masks: of that cut, as checkpoints hold them.
    """

    model: nn.Module
    source: str | None
    pruned: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)


def load_base_model(options: Options, spec: DataSpec) -> BaseModel:
    """Build the network of `options` for images of `spec` and fill it.

    Raises:
        ValueError: the file cannot be had or does not fit.
    """
    torch.manual_seed(options.seed)
    for flag in ("directly_ft_weights", "base_model_path"):
        if getattr(options, flag):
            with error_prefix(flag):
                return _from_file(options, spec, getattr(options, flag))
    model = build_model(options.arch, spec.classes, spec.channels, spec.size, not options.not_use_bn)
    if not options.pretrained:
        return BaseModel(model, None)
    with error_prefix("pretrained"):
        state, classes, source = _trained_weights(options, spec)
    own = model.state_dict()
    if spec.classes != classes:
        heads = [key for key in state if key in own and state[key].shape != own[key].shape]
        log.warning("notice: %s classes here: %s start untrained", spec.classes, ", ".join(heads))
        state |= {key: own[key] for key in heads}
    files.load_weights(model, state, source)
    return BaseModel(model, source)


def _trained_weights(options: Options, spec: DataSpec) -> tuple[dict[str, Tensor], int, str]:
    """Weights of ``--pretrained``, their number of classes, and where they are from."""
    if is_timm(options.arch):
        state, classes = pretrained_foreign(options.arch, spec.channels)
        return state, classes, f"timm's {options.arch.removeprefix('timm/')}"
    weights = weights_of(options.arch, options.pretrained or "", spec.size)
    return pretrained_state(weights), len(weights.meta["categories"]), f"torchvision's {weights}"


def _from_file(options: Options, spec: DataSpec, pattern: str) -> BaseModel:
    path = find_one(pattern)
    content = files.read(path, options.trust_checkpoint, options.weights_key)
    if isinstance(content, ExternalWeights):
        return _of_other_program(options, spec, path, content)
    stored = content.options
    if stored["arch"] != options.arch:
        raise ValueError(f"{path} holds a {stored['arch']}, not a {options.arch}: see --arch")
    _refuse_other_images(content, spec, path)
    if stored["not_use_bn"] != options.not_use_bn:
        raise ValueError(f"{path} and this command differ in --not_use_bn")
    if options.weights_key is not None:
        log.warning("notice: no effect on a checkpoint of this program: --weights_key")
    log_notices(conversion_notices(content.model, path))
    return _rebuilt(content, path)


def _rebuilt(checkpoint: Checkpoint, source: str | Path) -> BaseModel:
    model = rebuild(checkpoint.to_file(), source)
    return BaseModel(model, str(source), checkpoint.is_pruned, checkpoint.kept, checkpoint.masks)


def _of_other_program(options: Options, spec: DataSpec, path: Path, content: ExternalWeights) -> BaseModel:
    model = build_model(options.arch, spec.classes, spec.channels, spec.size, not options.not_use_bn)
    state, renamed = rename_head(content.model, model.state_dict(), path)
    if options.not_use_bn:
        add_biases(model, state)
    dense = sum(p.numel() for p in model.parameters())
    if options.trust_checkpoint:  # another program's network may be pruned; its shapes tell
        fit_to(model, state)
    files.load_weights(model, state, str(path))
    outputs = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    if outputs not in ([], [spec.classes]):
        raise ValueError(f"{path} distinguishes {outputs[0]} classes; {spec.name} has {spec.classes}")
    pruned = sum(p.numel() for p in model.parameters()) < dense
    if pruned:
        check_forward(model, asdict(spec), path)
    log_notices(content.notices + renamed + conversion_notices(state, path))
    return BaseModel(model, str(path), pruned)


def log_notices(notices: list[str]) -> None:
    for notice in notices:
        log.warning("notice: %s", notice)


def resumed_model(checkpoint: Checkpoint, spec: DataSpec, source: str) -> BaseModel:
    """The network of a run's checkpoint; its weights are taken out of `checkpoint`, which keeps none.

    Raises:
        ValueError: it was made for other images than `spec`'s.
    """
    _refuse_other_images(checkpoint, spec, source)
    base = _rebuilt(checkpoint, source)
    checkpoint.model = {}
    return base


def _refuse_other_images(checkpoint: Checkpoint, spec: DataSpec, source: str | Path) -> None:
    was, here = (tuple(of[key] for key in ("classes", "channels", "size")) for of in (checkpoint.data, asdict(spec)))
    if was != here:
        raise ValueError(
            f"{source} was made for {checkpoint.data.get('name', 'other images')}: "
            f"classes, channels and size {was}; {spec.name} has {here}"
        )


def family_notice(options: Options, spec: DataSpec) -> list[str]:
    """A notice where the only network of this name is made for images of another size."""
    if is_timm(options.arch) or runs_file(options.arch):
        return []
    small = is_small(options.arch, spec.size)
    if small and options.arch not in TORCHVISION_MODELS and spec.size > 64:
        return [f"{options.arch} is a network for small images; {spec.name} has {spec.size} px"]
    if not small and options.arch not in CIFAR_MODELS and spec.size <= 64:
        return [f"{options.arch} is torchvision's, made for larger images; {spec.name} has {spec.size} px"]
    return []
