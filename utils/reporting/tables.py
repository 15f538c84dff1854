"""Tables of plan, costs and results."""

from typing import Any

from torch import Tensor

from data import DataSpec, held_out_images, steps_per_epoch
from model.cost import Cost
from pruner import PRUNERS, Plan, Schedule
from pruner.plan import PlannedLayer
from utils.config.options import Options
from utils.reporting.format import align_columns, format_accuracy, format_epochs

LABELS = {
    "lr_prune": "learning rate", "update_reg_interval": "K_u", "stabilize_reg_interval": "K_s",
    "reg_granularity_pick": "δ'", "reg_granularity_prune": "δ", "reg_upper_limit_pick": "τ'", "reg_upper_limit": "τ",
}  # fmt: skip
SUFFICIENT_DECAY = 10  # exponent at the cut, learning rate · λ / (1 − momentum) summed over the steps; e^-10 is 5e-5
COST_CONVENTION = "  counted: weights and biases of conv and linear layers; 2 FLOPs per multiply-add; one image"


def plan_values(
    options: Options,
    spec: DataSpec,
    plan: Plan,
    before: Cost,
    after: Cost,
    schedule: Schedule | None,
    dense: Cost | None = None,
) -> dict[str, Any]:
    """Return the values of the plan: the object printed by ``--plan=json``.

    Args:
        dense: cost of the dense network, if the base is already pruned.
    """
    n_images = options.train_images or spec.train_images
    if n_images is not None:
        n_images -= held_out_images(n_images, options.val_fraction)
    prune_steps = schedule.cut_after_step + 1 if schedule else 0
    values = {
        "method": options.method,
        "arch": options.arch,
        "dataset": options.dataset,
        "wg": plan.kind,
        "params0": before.params,
        "flops0": before.flops,
        "params1": after.params,
        "flops1": after.flops,
        "speedup": before.flops / after.flops,
        "compression": before.params / after.params,
        "widths": list(after.widths),
        "picked_at": schedule.picked_at if schedule else None,
        "stabilise_from": schedule.stabilize_from if schedule else None,
        "cut_after_step": schedule.cut_after_step if schedule else None,
        "prune_settings": _prune_settings(options, schedule) if schedule else {},
        "decay": options.lr_prune * schedule.penalty_sum / max(1 - options.momentum, 1e-9) if schedule else None,
        "iterations": {
            "prune": prune_steps,
            "finetune": n_images and steps_per_epoch(n_images, options.batch_size) * options.epochs,
        },
        "epochs": {
            "prune": n_images and prune_steps / steps_per_epoch(n_images, options.batch_size_prune),
            "finetune": options.epochs,
        },
        "train_images": n_images,
        "layers": [_layer_values(p, plan.kind) for p in plan.layers],
    }
    if dense:
        values |= {
            "params_dense": dense.params, "flops_dense": dense.flops, "speedup_dense": dense.flops / after.flops,
            "compression_dense": dense.params / after.params,
        }  # fmt: skip
    if plan.kind == "weight":
        prunable = sum(p.groups for p in plan.layers)
        pruned = sum(p.pruned for p in plan.layers)
        values |= {"prunable_weights": prunable, "pruned_weights": pruned, "sparsity": pruned / max(prunable, 1)}
    return values


def _layer_values(planned: PlannedLayer, kind: str) -> dict[str, Any]:
    """Return a layer's entry of the plan; filters pruned in groups are counted as filters."""
    layer, width = planned.layer, planned.layer.width_of(kind)
    values: dict[str, Any] = {"address": layer.address, "name": layer.name}
    values |= {"groups": planned.groups * width, "pruned": planned.pruned * width}
    if layer.status:
        values |= {"status": "pruned" if planned.pruned else layer.status, "reason": layer.reason}
    return values


def _prune_settings(options: Options, schedule: Schedule) -> dict[str, str]:
    """Return the settings that determine the length of the prune phase: flag -> exact text."""
    names = [name for name in LABELS if schedule.picks_later or not name.endswith("_pick")]
    return {name: str(getattr(options, name)) for name in names}


def plan_table(values: dict[str, Any], notes: list[str]) -> str:
    """Format ``plan_values``; unpruned layers are counted, not listed."""
    kind, pruned = values["wg"], [layer for layer in values["layers"] if layer["pruned"]]
    lines = [f"Plan: {format_lengths(values)}", f"  {_describe_job(values)} on {values['dataset']}"]
    if pruned:
        lines[-1] += f", groups are {kind}s"
        lines += _layer_lines(values, pruned)
    lines += cost_lines(values, pruned=bool(pruned))
    if pruned and values["cut_after_step"] is not None:
        method = PRUNERS[values["method"]]
        pick = f"pick at step {values['picked_at']:,}, " if values["picked_at"] is not None else ""
        lines.append(
            f"  prune phase: {pick}{method.growth} to step {values['stabilise_from']:,}, cut after step "
            f"{values['cut_after_step']:,}{' (sooner if gaps widen)' if kind in method.gap_kinds else ''}"
        )
        decay = f"  the penalty alone would shrink pruned weights by about e^-{values['decay']:.3g}"
        too_little = values["decay"] < SUFFICIENT_DECAY
        advice = ", too little: raise steps, λ or learning rate" if too_little else "; batch norm can undo much of it"
        lines.append(decay + advice)
        lines.append(f"  {', '.join(f'{LABELS[name]} {value}' for name, value in values['prune_settings'].items())}")
    return "\n".join(lines + [f"  note: {note}" for note in notes])


def _layer_lines(values: dict[str, Any], pruned: list[dict[str, Any]]) -> list[str]:
    """Format the layers of a plan; for a traced network also the unpruned ones, with the reason."""
    kind, layers = values["wg"], values["layers"]
    kept_lines = [f"  {len(layers) - len(pruned)} other layers keep all {kind}s"]
    names = ("module", f"{kind}s", "pruned", "kept")
    if not any("status" in layer for layer in layers):
        return [
            *align_columns([("layer", *names), *((layer["address"], *_format_counts(layer)) for layer in pruned)]),
            *kept_lines,
        ]
    lines = align_columns([names, *(_format_counts(layer) for layer in pruned)])
    for status in ("free", "coupled", "fixed"):
        by_reason: dict[str, list[str]] = {}
        for layer in layers:
            if layer.get("status") == status:
                reason = "joined with other layers" if status == "coupled" else layer["reason"]
                by_reason.setdefault("gates" if reason.startswith("gate of") else reason, []).append(layer["name"])
        for reason, members in by_reason.items():
            lines.append(f"  {status}{reason and f' ({reason})'}: {', '.join(members)}")
    return lines


def _format_counts(layer: dict[str, Any]) -> tuple[str, str, str, str]:
    counts = (layer["groups"], layer["pruned"], layer["groups"] - layer["pruned"])
    return (layer["name"], *(f"{n:,}" for n in counts))


def format_lengths(values: dict[str, Any]) -> str:
    """Format the length of both phases in steps and epochs; without pruning, of training only."""
    phases = {"prune": "prune phase", "finetune": _finetune_title(any(layer["pruned"] for layer in values["layers"]))}
    images = "" if values["train_images"] is None else f" of your {values['train_images']:,} images"
    parts = []
    for phase, name in phases.items():
        steps, epochs = values["iterations"][phase], values["epochs"][phase]
        if phase == "finetune" or steps:
            length = [] if steps is None else [f"{steps:,} steps"]
            length += [] if epochs is None else [format_epochs(epochs) + images]
            images = ""  # once is enough
            parts.append(f"{name} {' = '.join(length)}")
    return ", then ".join(parts)


def _describe_job(values: dict[str, Any]) -> str:
    return f"{'plain training' if values['method'] == 'none' else values['method']}, {values['arch']}"


def _finetune_title(pruned: bool) -> str:
    return "fine-tuning" if pruned else "training"


def cost_lines(values: dict[str, Any], pruned: bool) -> list[str]:
    """Format costs before and after pruning, with the counting convention."""
    if not pruned:
        return [f"  params {values['params0']:,}   FLOPs {values['flops0']:,}", COST_CONVENTION]
    lines = [
        f"  params {values['params0']:,} -> {values['params1']:,} (compression {values['compression']:.2f}x)   "
        f"FLOPs {values['flops0']:,} -> {values['flops1']:,} (speedup {values['speedup']:.2f}x)",
        COST_CONVENTION,
    ]
    if "flops_dense" in values:
        lines.append(
            f"  dense network: params {values['params_dense']:,} (compression {values['compression_dense']:.2f}x)   "
            f"FLOPs {values['flops_dense']:,} (speedup {values['speedup_dense']:.2f}x)"
        )
    if "sparsity" in values:
        lines.append(
            f"  sparsity {100 * values['sparsity']:.2f} % ({values['pruned_weights']:,} of "
            f"{values['prunable_weights']:,} conv and linear weights)"
        )
    return lines


def closing_table(report: dict[str, Any]) -> str:
    """Format the results of a run."""

    def percent(*keys: str) -> list[str]:
        return ["" if report.get(key) is None else f"{report[key]:.2f}" for key in keys]

    rows: list[tuple[str, ...]] = [("accuracy on the test set, %", "top-1", "top-5", "top-1 re-estimated")]
    points = {"base": "base", "before_cut": "just before the cut", "after_cut": "just after the cut"}
    for point, title in points.items():
        if report[f"acc1_{point}"] is not None:
            rows.append((title, *percent(f"acc1_{point}", f"acc5_{point}", f"acc1_{point}_bn")))
    pruned = bool(report["pruned"])
    tuning = _finetune_title(pruned)
    if report["best_epoch"] is not None:
        chosen = "the test set" if report.get("val_acc1_best") is None else "held-out images"
        best = f"{tuning}, best epoch ({report['best_epoch']}), chosen on {chosen}"
        rows.append((best, *percent("acc1_best", "acc5_best"), ""))
        rows.append((f"{tuning}, last epoch", *percent("acc1_last", "acc5_last"), ""))
    lines = [
        f"{_describe_job(report)} on {report['data_name']}, seed {report['seed']}",
        *align_columns(_drop_empty(rows)),
    ]
    lines += cost_lines({
        "params0": report["params_before"], "params1": report["params_after"], "flops0": report["flops_before"],
        "flops1": report["flops_after"], "compression": report["compression"], "speedup": report["speedup"],
    } | {
        key: value
        for key, value in report.items()
        if key in ("sparsity", "pruned_weights", "prunable_weights") or key.endswith("_dense")
    }, pruned)  # fmt: skip
    if report.get("latency"):
        lines += latency_lines(report["latency"], pruned)
    names = {"finetune": tuning} | ({} if pruned else {"pick": None, "cut": None})  # not part of plain training
    spent = {names.get(phase, phase): seconds for phase, seconds in report["seconds"].items()}
    seconds = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items() if name)
    lines.append(f"  seconds: {seconds}")
    lines.append(f"  files: {report['run_dir']}")
    return "\n".join(lines)


def latency_lines(latency: dict[str, Any], pruned: bool) -> list[str]:
    """Format measured latency and throughput."""
    dense, cut = latency["dense"], latency["cut"]
    if not pruned:
        return [
            f"  measured, batch {batch}: {1000 * of['seconds']:.2f} ms ({of['images_per_second']:,.0f} images/s)"
            for batch, of in dense.items()
        ]
    return [
        f"  measured, batch {batch}: {1000 * dense[batch]['seconds']:.2f} -> {1000 * cut[batch]['seconds']:.2f} ms "
        f"({dense[batch]['seconds'] / cut[batch]['seconds']:.2f}x; {cut[batch]['images_per_second']:,.0f} images/s)"
        for batch in dense
    ]


def evaluation_table(
    source: str, data_name: str, accuracy: dict[str, float], cost: Cost, masks: dict[str, Tensor]
) -> str:
    """Format the result of ``--evaluate``."""
    lines = [
        f"{source} on the test images of {data_name}: {format_accuracy(accuracy)}  loss {accuracy['loss']:.4f}",
        f"  params {cost.params:,} ({cost.params_with_bn:,} with batch-norm)   FLOPs {cost.flops:,}",
        COST_CONVENTION,
    ]
    if masks:
        pruned = sum(int((~mask).sum()) for mask in masks.values())
        lines.append(f"  masked: {pruned:,} weights are zero, {100 * pruned / cost.params:.2f} % of the params")
    return "\n".join(lines)


def _drop_empty(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop columns without entries below their title."""
    titles, *columns = zip(*rows, strict=True)
    return list(zip(titles, *(column for column in columns if any(column[1:])), strict=True))
