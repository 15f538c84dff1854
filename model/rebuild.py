"""Rebuild a network from a file of weights: validated, and fitted to the shapes in the file.

``load_pruned`` is for users, ``rebuild`` for the program. The checks also serve weights of other tools
(utils/checkpoint/files.py), and ``fit_to`` plans on the meta device. A new check of a tensor: in ``check_tensors`` if
it holds for any network, in ``check_values`` if it depends on the network, never in ``fit_to``, whose tensors may have
no values. What a kind of layer states of its size is set here and in pruner/cut.py, which is installed alone: change
both.
"""

import os
from collections.abc import Callable
from typing import IO, Any

import torch
from torch import Tensor, nn

from .build import ARCHS, WITH_HEADS, build_model, build_on_meta, is_auxiliary
from .foreign import is_timm, runs_file
from .forward import check_forward, one_line

_OTHERS = (
    "give a file of a run, such as weights/pruned_model.pth; "
    "weights of other tools: build_model(...).load_state_dict(...)"
)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OF_LAYERS = ("weight", "running_mean", "running_var")  # ends of names; a bias may be an attention's mask, a buffer


def fit_to(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Give the parameters and buffers of `model` the shapes that they have in `state`, in place.

    A pruned network is its dense one with smaller tensors, so the shapes say all there is to say, and rebuilding needs
    neither the masks of the cut nor the library that made it. Only what can have come of pruning is touched: no larger
    than it is, with as many dimensions.
    """
    empty: dict[int, Tensor] = {}  # id of a tensor -> its successor: tied tensors stay tied
    for prefix, module in model.named_modules():
        before = getattr(module, "weight", None)
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            saved = state.get(f"{prefix}.{name}" if prefix else name)
            if saved is None or not _is_smaller(saved.shape, tensor.shape):
                continue
            if id(tensor) not in empty:
                new = torch.empty(saved.shape, dtype=tensor.dtype, device=tensor.device)
                empty[id(tensor)] = nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new
            setattr(module, name, empty[id(tensor)])
        if before is not getattr(module, "weight", None) or isinstance(module, nn.modules.batchnorm._BatchNorm):
            _set_sizes(module, before)
    return model


def _is_smaller(shape: torch.Size, than: torch.Size) -> bool:
    return shape != than and len(shape) == len(than) and all(0 < a <= b for a, b in zip(shape, than, strict=True))


def _set_sizes(module: nn.Module, before: Tensor | None) -> None:
    """Set the sizes that a layer states to those of its weight, which was `before`."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if module.groups > 1 and before is not None:  # filters per group stay
            module.groups = module.groups * module.weight.shape[0] // before.shape[0]
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        sized = module.weight if module.weight is not None else module.running_mean
        module.num_features = module.num_features if sized is None else len(sized)


def add_biases(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the convs of `model` the biases that `state` has and they lack, in place.

    VGGs without batch-norm have none, but older checkpoints of ours do.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is None and f"{name}.bias" in state:
            module.bias = nn.Parameter(torch.empty(module.out_channels, device=module.weight.device))


def check_fit(own: dict[str, Tensor], state: dict[str, Tensor], source: object) -> None:
    """Compare `state` with a network's own state dict.

    Raises:
        ValueError: the keys or shapes do not fit; names them.
    """
    # Files from before batch-norm counted its batches lack the counts, and nothing depends on them. Auxiliary heads
    # start untrained.
    optional = {key for key in own if key.endswith("num_batches_tracked") or is_auxiliary(key)}
    missing = [key for key in own if key not in state and key not in optional]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    wrong = [
        f"{what} {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if wrong:
        raise ValueError(f"{source} does not fit the network: {'; '.join(wrong)}")


def check_tensors(state: dict[str, Tensor], source: object) -> None:
    """Check what holds for the tensors of any network; the rest needs the network: ``check_values``.

    Raises:
        ValueError: one is not dense; or a weight or running statistic is not floating-point, not finite in float32, or
            a negative variance; names it.
    """
    for name, value in state.items():
        wrong = _wrong_form(value) or (_wrong_values(name, value) if name.endswith(OF_LAYERS) else None)
        if wrong:
            raise ValueError(f"{source}: {name} {wrong}")


def check_values(model: nn.Module, state: dict[str, Tensor], source: object) -> None:
    """Check that each tensor of `state` can become the one of `model` with its name.

    After ``check_fit`` and ``check_tensors``. Buffers may hold any value of their kind, such as a mask's -inf.

    Raises:
        ValueError: numbers of another kind, or a parameter that is not finite in float32; names it.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, own in model.state_dict().items():
        value = state.get(name, own)
        is_count = name.endswith("num_batches_tracked")  # averaged over checkpoints it may have become a fraction
        wrong = None
        if _kind(value) != _kind(own) and not is_count:
            wrong = f"holds {_dtype(value)} numbers; the network's are {_dtype(own)}"
        elif name in parameters and value.is_floating_point():
            wrong = _wrong_values(name, value)
        if wrong:
            raise ValueError(f"{source}: {name} {wrong}")


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _kind(value: Tensor) -> str:
    if value.is_floating_point() or value.is_complex():
        return "complex" if value.is_complex() else "float"
    return "bool" if value.dtype == torch.bool else "whole"


def _wrong_form(value: Tensor) -> str | None:
    if value.is_meta:
        return "has a shape but no values"
    if value.layout != torch.strided or value.is_nested:
        return f"is a {'nested' if value.is_nested else value.layout} tensor, not a dense one"
    if value.is_quantized:
        return f"is quantized ({_dtype(value)}); the network's are float32: save it before it is quantized"
    return None


def _wrong_values(name: str, value: Tensor) -> str | None:
    if value.is_complex():
        return f"holds complex numbers ({_dtype(value)}); the network's are float32"
    if value.dtype not in FLOATS:
        return f"holds {_dtype(value)} numbers; the network's are float32"
    values = value.float()
    infinite = int((~values.isfinite()).sum())
    if infinite:
        return f"is not finite in {infinite} of {values.numel()} values"
    if name.endswith("running_var") and (values < 0).any():
        return f"is a variance and has a negative value ({values.min().item():g})"
    return None


def check_network(saved: object, source: object) -> dict:
    """Validate the network part of a checkpoint of this program: keys, types and finite values.

    Returns:
        `saved`.

    Raises:
        ValueError: something is missing or wrong; names its key.
    """
    if not isinstance(saved, dict) or not {"version", "options"} <= saved.keys():
        raise ValueError(f"{source} is not a checkpoint of this program: it has no 'version' and 'options'; {_OTHERS}")
    for place, (is_right, wanted) in _PLACES.items():
        value: Any = saved
        for part in place.split("."):
            if part not in value:
                raise ValueError(f"{source}: '{place}' is missing")
            value = value[part]
        if not is_right(value):
            what = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
            raise ValueError(f"{source}: '{place}' is {what[:80]}, not {wanted}")
    for key in ("model", "kept", "masks"):
        for name, value in saved[key].items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise ValueError(f"{source}: '{key}' has a {type(value).__name__} for {name!r}, not a tensor by name")
    check_tensors(saved["model"], f"{source}: 'model'")
    _check_masks(saved, source)
    return saved


def _check_masks(saved: dict, source: object) -> None:
    """Check that kept groups and masks fit the weights in the checkpoint."""
    for key in ("kept", "masks"):
        for name, mask in saved[key].items():
            weight = saved["model"].get(f"{name}.weight")
            if mask.dtype != torch.bool or mask.layout != torch.strided or mask.is_meta:
                raise ValueError(f"{source}: '{key}' has for '{name}' a tensor that is not dense and bool")
            if weight is None or (mask.shape != weight.shape if key == "masks" else mask.ndim != 1):
                raise ValueError(f"{source}: '{key}' has {tuple(mask.shape)} for '{name}', which does not fit 'model'")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


# Place in a checkpoint -> whether a value can stand there, and in words.
_PLACES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "version": (_is_count, "a whole number from 1"),
    "options": (_is_dict, "a dict"),
    "options.arch": (
        lambda value: isinstance(value, str) and (value in ARCHS or is_timm(value) or runs_file(value)),
        "the name of a network",
    ),
    "options.not_use_bn": (lambda value: isinstance(value, bool), "true or false"),
    "data": (_is_dict, "a dict"),
    "data.classes": (_is_count, "a whole number from 1"),
    "data.channels": (_is_count, "a whole number from 1"),
    "data.size": (_is_count, "a whole number from 1"),
    "kept": (_is_dict, "a dict of bool tensors by name of layer"),
    "masks": (_is_dict, "a dict of bool tensors by name of layer"),
    "model": (_is_dict, "a dict of tensors by name"),
}


def rebuild(saved: dict, source: object = "the checkpoint", network: nn.Module | None = None) -> nn.Module:
    """Build the network of a checkpoint of this program, dense or pruned, in float32 on the CPU.

    Args:
        saved: validated by ``check_network``.
        source: named in errors.
        network: the dense network, which is shrunk in place; None: built by its name.

    Raises:
        ValueError: the network cannot be built, or the weights do not fit it, by key or by shape.
    """
    data, options, state = saved["data"], saved["options"], saved["model"]
    model = network if network is not None else _dense(options, data, source)
    dense = model.state_dict()
    if options["not_use_bn"]:
        add_biases(model, state)
    fit_to(model, state)
    own = model.state_dict()
    check_fit(own, state, source)
    if any(own[key].shape != value.shape for key, value in dense.items()):
        check_forward(model, data, source)
    lacking = {key: value for key, value in own.items() if key not in state}
    counts = {
        key: value if is_auxiliary(key) else torch.zeros(value.shape, dtype=value.dtype)
        for key, value in lacking.items()
    }
    check_values(model, state, source)
    values = {key: value.to(own[key].dtype) for key, value in state.items()}
    # Tied parameters stay tied only where they are not assigned; those without values have to be.
    model.load_state_dict(counts | values, assign=any(value.is_meta for value in own.values()))
    return model


def _dense(options: dict, data: dict, source: object) -> nn.Module:
    """Build the dense network, without weights where it is known that a file has all its tensors."""
    build = build_on_meta if options["arch"] in ARCHS and options["arch"] not in WITH_HEADS else build_model
    try:
        return build(options["arch"], data["classes"], data["channels"], data["size"], not options["not_use_bn"])
    except (ValueError, RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(f"{source}: {options['arch']} cannot be built ({one_line(error)})") from None


def load_pruned(path: str | os.PathLike | IO[bytes], network: nn.Module | None = None) -> nn.Module:
    """Load the network of `path` (``pruned_model.pth`` or a checkpoint) in eval mode, from any working directory.

    Args:
        network: the dense network that was pruned, built by the caller; it is shrunk in place and returned. Needed for
            a network of the user's own, whose code no file may run.

    Masked weights (kind ``weight``) are zeros in the network; the masks are in the file under ``masks``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint of this program, or damaged.
    """
    source = path if isinstance(path, str | os.PathLike) else "the file"
    if source is path and os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is not a file: give a file of a run, such as weights/pruned_model.pth")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}: give a file of a run, such as weights/pruned_model.pth") from None
    except Exception as error:  # torch.load fails in many ways on what is no checkpoint
        what = f"{source} cannot be read: it is cut short, damaged or no checkpoint of this program"
        raise ValueError(f"{what} ({type(error).__name__}); {_OTHERS}") from None
    arch = check_network(saved, source)["options"]["arch"]
    if network is None and runs_file(arch):
        raise ValueError(f"{source} holds a network of {arch}: build it and call load_pruned(file, network)")
    return rebuild(saved, source, network).eval()
