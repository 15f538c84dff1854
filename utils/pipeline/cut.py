"""Make and verify the cut of a run, and measure accuracy before and after it."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model import reinitialize
from pruner import Pruner, WeightMasks, cut, masked_outputs
from utils.checkpoint.paths import LATEST
from utils.engine.evaluate import evaluate, reestimated_acc1
from utils.engine.precision import to_memory_format
from utils.pipeline.latency import measure_latency
from utils.pipeline.prepare import Job
from utils.pipeline.probes import jacobian_singular_values, noisy_ensemble_acc1

log = logging.getLogger("pruning")
N_VERIFIED = 64  # images for the comparison of the cut with the masked network
TOLERANCE = 1e-4  # of their outputs, relative to the largest; 1e-5 is usual, trained networks sometimes exceed it
MAX_LOSS_WITHOUT_NOTICE = 1.0  # points of re-estimated accuracy


class CutMismatchError(ArithmeticError):
    """The outputs of the cut network differ from those of the masked one."""


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
            _measure_after(job)
        if options.report_latency:
            run.record.pruning.latency["cut"] = measure_latency(job.model, spec.channels, spec.size)
        _probe(job)
    if options.reinit and "reinit" not in pruner.ignores:
        reinitialize(job.model, options.reinit)
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
    expected = compute_outputs(model, lambda: masked_outputs(model, kept, kind, structure, images))
    masks = cut(model, kept, kind, structure)
    to_memory_format(model, job.options)
    verify_outputs(compute_outputs(model, lambda: model(images)), expected)
    job.run.set_pruned({} if masks else kept, masks)


def _measure_after(job: Job) -> None:
    metrics = job.run.record.pruning
    metrics.after_cut = evaluate(job.model, job.data.test_batches())
    before, after = metrics.acc1_before_cut_bn or 0.0, reestimated_acc1(job.model, job.data)
    metrics.acc1_after_cut_bn = after
    job.run.log_test("after the cut", _steps(job), metrics.after_cut)
    job.run.log_line(
        f"cut: test acc1 {metrics.before_cut['acc1']:.2f} -> {metrics.after_cut['acc1']:.2f} raw, "
        f"{before:.2f} -> {after:.2f} with re-estimated batch-norm statistics"
    )
    if before - after > MAX_LOSS_WITHOUT_NOTICE:
        log.warning(
            "notice: pruning cost %.1f points (batch norm re-estimated): pruned groups had not decayed; raise "
            "--reg_upper_limit or --stabilize_reg_interval",
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


@torch.no_grad()
def compute_outputs(model: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    """Return the result of `compute`, with `model` in eval mode and without TF32."""
    training = model.training
    model.eval()
    with torch.backends.cudnn.flags(allow_tf32=False):
        outputs = compute()
    model.train(training)
    return outputs


def verify_outputs(outputs: Tensor, expected: Tensor) -> None:
    """Verify that the outputs of the cut network equal those of the masked one, up to ``TOLERANCE``.

    Raises:
        CutMismatchError: they differ.
    """
    difference = ((outputs - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    if not difference <= TOLERANCE:
        raise CutMismatchError(
            f"the cut is wrong: outputs differ from the masked network's by {difference:.1e} of the largest; "
            "the cut network is not saved. Please report this with the command"
        )
    log.info("cut: outputs equal the masked network's to %.1e of the largest", difference)
