"""``log/report.json``: what was done and what came of it."""

from typing import Any

import torch

from data import DataSpec
from utils.checkpoint.record import FinetuneMetrics, Record
from utils.config.options import Options
from utils.dist.process_group import shard
from utils.pipeline.plan import Planned


def report_of(
    options: Options,
    spec: DataSpec,
    planned: Planned,
    record: Record,
    device: torch.device,
    run_dir: str,
) -> dict[str, Any]:
    """Everything a table of results would ask for, as plain values."""
    values, around, tuned, tally = planned.values, record.around, record.tuned, record.tally
    last_n = tuned.last_epochs(options.last_n_epoch)
    sparsity = {key: values[key] for key in ("sparsity", "pruned_weights", "prunable_weights") if key in values}
    if sparsity:
        sparsity["sparsity_per_layer"] = {p.layer.name: p.pruned / p.groups for p in planned.plan.layers}
    return {
        "method": options.method,
        "arch": options.arch,
        "dataset": options.dataset,
        "data_name": spec.name,
        "train_images": record.images[0],
        "wg": options.wg,
        "stage_pr": options.stage_pr,
        "seed": options.seed,
        "base_model": record.base,
        "pruned": planned.plan.pruned,
        "params_before": planned.before.params,
        "params_after": planned.after.params,
        "params_with_bn_before": planned.before.params_with_bn,
        "params_with_bn_after": planned.after.params_with_bn,
        "flops_before": planned.before.flops,
        "flops_after": planned.after.flops,
        "speedup": values["speedup"],
        "compression": values["compression"],
        **sparsity,
        **{
            f"{key}_{station}": getattr(around, station).get(key)
            for station in ("base", "before_cut", "after_cut")
            for key in ("acc1", "acc5")
        },
        "acc1_before_cut_bn": around.acc1_before_cut_bn,
        "acc1_after_cut_bn": around.acc1_after_cut_bn,
        "gap": around.gap,
        "l1_comparison": around.l1_comparison,
        "latency": around.latency,
        "amp": options.amp,
        "channels_last": options.channels_last == "true",
        "noisy_ensemble_acc1": around.noisy_ensemble_acc1,
        "jacobian_singular_values": around.jacobian_singular_values,
        "acc1_best": tuned.best,
        "acc1_best_is": _best_is(tuned),
        "val_acc1_best": tuned.val_acc1[tuned.best_epoch] if tuned.val_acc1 else None,
        "best_epoch": tuned.best_epoch,
        "acc1_last": tuned.last,
        "acc1_last_epochs": last_n
        and {"epochs": min(options.last_n_epoch, len(tuned.acc1)), "mean": last_n[0], "std": last_n[1]},
        "acc5_best": tuned.acc5[tuned.best_epoch] if tuned.acc5 else None,
        "acc5_last": tuned.acc5[-1] if tuned.acc5 else None,
        "iterations": dict(tally.iterations),
        "seconds": {phase: round(spent, 3) for phase, spent in tally.seconds.items()},
        "images_per_second": {phase: round(rate, 1) for phase, rate in tally.images_per_second.items()},
        "torch_version": torch.__version__,
        "processes": shard().of,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "run_dir": run_dir,
    }


def _best_is(tuned: FinetuneMetrics) -> str:
    if tuned.val_acc1:
        return "the test accuracy of the best epoch on the held-out part of the training set"
    return "the best epoch on the test set"
