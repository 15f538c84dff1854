"""Validation of checkpoints and reports."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.rebuild import check_network
from pruner import PRUNERS, groups
from pruner.regularized import GReg
from utils.checkpoint.record import TESTED, PhaseCounters, Record
from utils.checkpoint.schema import Keys, mismatch
from utils.config.options import stored_defaults
from utils.config.paths import regular_file


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool and value.layout == torch.strided


def _finite(value: Any) -> bool:
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()
    return dense and bool(value.isfinite().all())


def _gaps(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isnan().any())


def _rng_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.shape == torch.get_rng_state().shape


def _generator_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 1


_ACCURACY = {str: _number}
_OPTIONAL = (_number, None)
_RECORD = Keys(
    {
        "images": lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(map(_count, value)),
        "base": (str, None),
        "around": Keys(
            {},
            {
                "base": _ACCURACY, "before_cut": _ACCURACY, "after_cut": _ACCURACY, "acc1_before_cut_bn": _OPTIONAL,
                "acc1_after_cut_bn": _OPTIONAL, "gap": _ACCURACY, "l1_comparison": {str: _ACCURACY},
                "latency": {str: {str: _ACCURACY}}, "noisy_ensemble_acc1": _OPTIONAL,
                "jacobian_singular_values": (_ACCURACY, None),
            },
        ),
        "tuned": Keys(
            {"acc1": [_number], "acc5": [_number], "val_acc1": [_number], "best_epoch": (_count, None),
             "right": _count, "seen": _count}
        ),
        "tally": Keys({f.name: {str: _number} for f in fields(PhaseCounters)}),
        "tests": [Keys(dict.fromkeys(TESTED, (int, float, str, None)))],
    },
    {"base_shapes": {str: [_count]}},
)  # fmt: skip
_LAYER = Keys({"updates": _count, "finished": bool, "kept": (_mask, None), "gap": (_gaps, None)})
_GREG = Keys(
    {
        "step": int, "decisions": _count, "finished_at": (_count, None), "layers": {str: _LAYER},
        "l1_picks": {str: _mask}, "comparison": {str: {str: _number}}, "milestones": {str: _count},
    },
    {
        "starting_scores": {str: _finite},
        "pending": (None, Keys({"step": _count, "layers": [str], "gaps": _gaps})),
    },
)  # fmt: skip
_SGD_STATE, _ADAM_STATE = {"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"}
_PARAMETER_STATE = Keys(
    {},
    {"momentum_buffer": (_finite, None), "step": (_finite, _number), "exp_avg": _finite, "exp_avg_sq": _finite},
)
_OPTIMIZER = (
    lambda value: value == {},
    Keys(
        {
            "state": {int: _PARAMETER_STATE},
            "param_groups": [Keys({"params": [_count], "lr": (_number, _finite)})],
        }
    ),
)
_STATE = Keys(
    {
        "phase": lambda value: value in ("prune", "finetune"),
        "step": _count,
        "epoch": _count,
        "optimizer": _OPTIMIZER,
        "pruner": dict,
        "rng": [Keys({"torch": _rng_state, "cuda": [_generator_bytes]})],
        "record": _RECORD,
        "observers": {str: dict},
    },
    {"identity": Keys({"run_id": str, "fingerprint": str, "class_names": [str]})},
)


_REPORT = Keys(
    {
        "method": str, "arch": str, "data_name": str, "seed": int, "pruned": {str: _count}, "params_before": _count,
        "params_after": _count, "flops_before": _count, "flops_after": _count, "speedup": _number,
        "compression": _number, "seconds": {str: _number}, "iterations": {str: _count}, "run_dir": str,
        "best_epoch": (_count, None),
        **{f"acc1_{name}": _OPTIONAL for name in ("base", "before_cut", "after_cut", "best", "last")},
    },
    {
        "latency": {str: {str: _ACCURACY}}, "sparsity": _number, "pruned_weights": _count, "prunable_weights": _count,
        "device": str, "torch_version": str, "settings": dict,
        **{f"acc5_{name}": _OPTIONAL for name in ("base", "before_cut", "after_cut", "best", "last")},
        **{f"acc1_{name}_bn": _OPTIONAL for name in ("before_cut", "after_cut")},
    },
)  # fmt: skip


def read_report(file: Path) -> dict[str, Any]:
    """Read and validate a run's ``log/report.json``.

    Raises:
        ValueError: it cannot be read, or an entry is missing or invalid; names it.
    """
    try:
        report = json.loads(regular_file(file).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    wrong = mismatch(report, _REPORT, "")
    if wrong is not None:
        raise ValueError(f"{file} is not a report of this program: invalid {wrong.lstrip('.') or 'content'}")
    return report


def validate(content: dict[str, Any], source: object) -> dict[str, Any]:
    """Validate and return the content of a checkpoint: the network and, with a phase, the state of the run.

    Raises:
        ValueError: an entry is missing or invalid; names it and `source`.
    """
    check_network(content, str(source))
    wrong = next(_network_inconsistencies(content), None)
    if wrong is None and "phase" in content and content["version"] > 1:  # version 1 cannot be resumed
        wrong = mismatch(content, _STATE, "")
        wrong = next(_state_inconsistencies(content), None) if wrong is None else wrong
    if wrong is not None:
        raise ValueError(f"{source} is damaged or not a checkpoint of this program: invalid {wrong.lstrip('.')}")
    return content


# Stored settings that checkpoints of 0.3 may lack; each new one is added.
LATER = (
    "fix_reg_interval", "penalize", "prune_steps", "rank", "ratios", "round_to", "speedup", "sync_bn", "weights_key",
)  # fmt: skip


def _fits(n_groups: int, n_slices: int, kind: str) -> bool:
    """Whether `n_slices` of a weight can form `n_groups` groups: a group may have several filters."""
    return n_groups > 0 and n_slices % n_groups == 0 if kind == "filter" else n_groups == n_slices


def _network_inconsistencies(content: dict[str, Any]) -> Iterator[str]:
    """Yield entries that do not fit the weights of a network that ``check_network`` has passed."""
    weights, kind = content["model"], content["options"].get("wg", "filter")
    if kind not in groups.KINDS:
        yield "options.wg"
    for name, kept in content["kept"].items():
        n_groups = groups.count(weights[f"{name}.weight"].shape, kind)
        if kind == "weight" or not _fits(int(kept.sum()), n_groups, kind):
            yield f"kept.{name}"


def _state_inconsistencies(content: dict[str, Any]) -> Iterator[str]:
    """Yield entries of a run's state that do not fit each other."""
    for name, default in stored_defaults().items():
        absent = name not in content["options"] or (content["options"][name] is None and default is not None)
        if absent and name not in LATER:
            yield f"options.{name}"
    weights, options = content["model"], content["options"]
    kind = options.get("wg")
    if content["phase"] == "prune" and options["directly_ft_weights"]:  # these runs have no prune phase
        yield "phase"
    pruner = content["pruner"]
    if pruner and issubclass(PRUNERS.get(options["method"], object), GReg):
        wrong = mismatch(pruner, _GREG, "pruner")
        if wrong is not None:
            yield wrong
        if options["method"] == "GReg-2" and pruner.get("starting_scores", {}).keys() != pruner["layers"].keys():
            yield "pruner.starting_scores"
        if pruner["layers"].keys() != pruner["l1_picks"].keys():
            yield "pruner.layers"
    for name, layer in pruner.get("layers", {}).items():
        weight = weights.get(f"{name}.weight")
        if weight is None or (
            layer["kept"] is not None and not _fits(len(layer["kept"]), groups.count(weight.shape, kind), kind)
        ):
            yield f"pruner.layers.{name}"
    try:
        Record().load_state_dict(content["record"])
    except TypeError:  # unknown key
        yield "record"


def check_optimizer_state(state: dict[str, Any], model: nn.Module, source: object) -> None:
    """Check that the optimizer state fits the parameters of `model`.

    Raises:
        ValueError: the number of parameters or the shape of a buffer differs.
    """
    shapes = [parameter.shape for parameter in model.parameters()]
    listed = [index for group in state.get("param_groups", []) for index in group["params"]]
    fits = not state or listed == list(range(len(shapes)))
    for index, values in state.get("state", {}).items():
        buffers = [value for value in values.values() if isinstance(value, Tensor) and value.ndim]
        fits = fits and index < len(shapes) and all(buffer.shape == shapes[index] for buffer in buffers)
        fits = fits and set(values) in (_SGD_STATE, _ADAM_STATE)
    if not fits:
        raise ValueError(f"{source} is damaged: its optimizer state does not fit its weights")
