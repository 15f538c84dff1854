"""Write ``log/report.json``: settings and metrics of a run."""

from typing import Any

import torch

from pruner.regularized import penalizes_groups
from utils.checkpoint.record import FinetuneMetrics
from utils.config.options import settings_off_default
from utils.dist.process_group import shard
from utils.pipeline.prepare import Job
from utils.reporting.run_dir import RunDir
from utils.reporting.tables import closing_table


def write_report(job: Job) -> None:
    """Write the report, which marks the run as finished, and log the closing table; on rank 0."""
    if isinstance(job.run, RunDir):
        report = collect_report(job)
        job.run.finish(report)
        job.run.log_line(closing_table(report))


def collect_report(job: Job) -> dict[str, Any]:
    """Collect settings and metrics of a run as plain values."""
    options, spec, planned, record = job.options, job.data.spec, job.planned, job.run.record
    values, pruning, finetuning, counters = planned.values, record.pruning, record.finetuning, record.counters
    last_n = finetuning.last_epochs(options.last_n_epoch)
    sparsity: dict[str, Any] = {
        key: values[key] for key in ("sparsity", "pruned_weights", "prunable_weights") if key in values
    }
    if sparsity:
        sparsity["sparsity_per_layer"] = {p.layer.name: p.pruned / p.groups for p in planned.plan.layers}
    return {
        "method": options.method,
        "arch": options.arch,
        "dataset": options.dataset,
        "data_name": spec.name,
        "train_images": record.images[0],
        "wg": options.wg,
        "stage_pr": str(options.stage_pr),
        "ratios": str(options.ratios),
        "penalize": ("group" if penalizes_groups(options, planned.plan) else "filter") if planned.schedule else None,
        "seed": options.seed,
        "settings": settings_off_default(options),
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
        **{key: value for key, value in values.items() if key.endswith("_dense")},
        **{
            f"{key}_{point}": getattr(pruning, point).get(key)
            for point in ("base", "before_cut", "after_cut")
            for key in ("acc1", "acc5")
        },
        "acc1_before_cut_bn": pruning.acc1_before_cut_bn,
        "acc1_after_cut_bn": pruning.acc1_after_cut_bn,
        "gap": pruning.gap,
        "l1_comparison": pruning.l1_comparison,
        "latency": pruning.latency,
        "amp": options.amp,
        "channels_last": options.channels_last == "true",
        "noisy_ensemble_acc1": pruning.noisy_ensemble_acc1,
        "jacobian_singular_values": pruning.jacobian_singular_values,
        "acc1_best": finetuning.best,
        "acc1_best_is": _describe_best(finetuning),
        "val_acc1_best": finetuning.of_best_epoch(finetuning.val_acc1),
        "best_epoch": finetuning.best_epoch,
        "acc1_last": finetuning.last,
        "acc1_last_epochs": last_n
        and {"epochs": min(options.last_n_epoch, len(finetuning.acc1)), "mean": last_n[0], "std": last_n[1]},
        "acc5_best": finetuning.of_best_epoch(finetuning.acc5),
        "acc5_last": finetuning.acc5[-1] if finetuning.acc5 else None,
        "iterations": dict(counters.iterations),
        "seconds": {phase: round(spent, 3) for phase, spent in counters.seconds.items()},
        "images_per_second": {phase: round(rate, 1) for phase, rate in counters.images_per_second.items()},
        "torch_version": torch.__version__,
        "processes": shard().world_size,
        "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "cpu",
        "run_dir": str(job.run.path),
    }


def _describe_best(finetuning: FinetuneMetrics) -> str:
    if finetuning.val_acc1:
        return "the test accuracy of the best epoch on the held-out part of the training set"
    return "the best epoch on the test set"
