"""Make and verify the cut of a run, and measure accuracy before and after it."""

import logging

from model import build_model, reinitialize
from pruner import CutMismatchError, Pruner, WeightMasks, cut_and_compare
from utils.checkpoint.paths import LATEST
from utils.engine.evaluate import evaluate, reestimated_acc1
from utils.engine.precision import to_memory_format
from utils.pipeline.latency import measure_latency
from utils.pipeline.prepare import Job
from utils.pipeline.probes import jacobian_singular_values, noisy_ensemble_acc1

log = logging.getLogger("pruning")
N_VERIFIED = 64  # images for the comparison of the cut with the masked network
MAX_LOSS_WITHOUT_NOTICE = 1.0  # points of re-estimated accuracy


def cut_and_measure(job: Job, pruner: Pruner) -> None:
    """Cut the run's network in place; measure accuracy and latency before and after."""
    options, spec, run = job.options, job.data.spec, job.run
    with run.record.counters.timed("cut"):
        if job.planned.plan.pruned:
            _measure_before(job, pruner)
        if options.report_latency:
            run.record.pruning.latency["dense"] = measure_latency(job.model, spec.channels, spec.size)
        if job.planned.plan.pruned:
            _cut(job, pruner)
            _measure_after(job, pruner)
        if options.report_latency:
            run.record.pruning.latency["cut"] = measure_latency(job.model, spec.channels, spec.size)
        _probe(job)
    if options.reinit and "reinit" not in pruner.ignores:
        arguments = (options.arch, spec.classes, spec.channels, spec.size, not options.not_use_bn)
        reinitialize(job.model, options.reinit, lambda: build_model(*arguments))
        WeightMasks(job.model, run.masks).after_step()  # mask the new weights, too


def _measure_before(job: Job, pruner: Pruner) -> None:
    metrics = job.run.record.pruning
    # Without a prune phase the weights are those of the base, which has been tested.
    is_tested = bool(metrics.base) and not pruner.has_prune_phase
    metrics.before_cut = metrics.base if is_tested else evaluate(job.model, job.data.test_batches())
    metrics.acc1_before_cut_bn = reestimated_acc1(job.model, job.data)
    metrics.gap, metrics.l1_comparison = pruner.gaps(), pruner.comparison()
    job.run.log_test("before the cut", _steps(job), metrics.before_cut)


def _cut(job: Job, pruner: Pruner) -> None:
    model, kind, kept = job.model, job.planned.plan.kind, pruner.kept()
    images = next(iter(job.data.test_batches())).images[:N_VERIFIED]
    structure = job.planned.structure
    try:
        masks = cut_and_compare(model, kept, kind, structure, images)
    except CutMismatchError as error:
        raise CutMismatchError(f"{error}; the cut network is not saved. Please report this with the command") from None
    to_memory_format(model, job.options)
    job.run.set_pruned({} if masks else kept, masks)


def _measure_after(job: Job, pruner: Pruner) -> None:
    metrics = job.run.record.pruning
    metrics.after_cut = evaluate(job.model, job.data.test_batches())
    before, after = metrics.acc1_before_cut_bn or 0.0, reestimated_acc1(job.model, job.data)
    metrics.acc1_after_cut_bn = after
    job.run.log_test("after the cut", _steps(job), metrics.after_cut)
    job.run.log_line(
        f"cut: test acc1 {metrics.before_cut['acc1']:.2f} -> {metrics.after_cut['acc1']:.2f} raw, "
        f"{before:.2f} -> {after:.2f} with re-estimated batch-norm statistics"
    )
    if pruner.has_prune_phase and before - after > MAX_LOSS_WITHOUT_NOTICE:
        log.warning(
            "notice: pruning cost %.1f points (batch norm re-estimated): pruned groups had not decayed; make the prune "
            "phase longer (--prune_steps)",
            before - after,
        )


def _steps(job: Job) -> int:
    return sum(job.run.record.counters.iterations.values())


def _probe(job: Job) -> None:
    """Measure noisy ensembles and the Jacobian of the cut network, if requested."""
    options, metrics = job.options, job.run.record.pruning
    if options.model_noise_num:
        std, copies = options.model_noise_std, options.model_noise_num
        metrics.noisy_ensemble_acc1 = noisy_ensemble_acc1(job.model, job.data, std, copies, options.seed)
        job.run.log_line(
            f"ensemble of {copies} noisy copies (std {std:g}): training acc1 {metrics.noisy_ensemble_acc1:.2f}"
        )
    if options.check_jsv_loop:
        metrics.jacobian_singular_values = jacobian_singular_values(job.model, job.data, options.check_jsv_loop)
        values = "  ".join(f"{key} {value:.4g}" for key, value in metrics.jacobian_singular_values.items())
        job.run.log_line(f"singular values of the input-output Jacobian: {values}")


def save_before_finetuning(job: Job) -> None:
    """Save the network before fine-tuning."""
    names = ["checkpoint_best"] * (not job.options.epochs) + ["checkpoint_just_finished_prune", LATEST]
    job.run.save_pruned(job.model)
    job.run.save(*names, phase="finetune", step=0, model=job.model)
