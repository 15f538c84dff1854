"""The cut as a station of a run: made, checked, and measured on both sides."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from data import Data
from pruner import Pruner, cut, zeroed_outputs
from utils.engine.precision import to_memory_format
from utils.engine.train import evaluate, reestimated_acc1
from utils.pipeline.latency import latency_of
from utils.pipeline.plan import Planned
from utils.pipeline.probes import jacobian_singular_values, noisy_ensemble_acc1
from utils.reporting.run_dir import Run

log = logging.getLogger("pruning")
CHECKED = 64  # images on which the cut network is held against the zeroed one
ROUNDING = 1e-4  # between their outputs, relative to the largest: 1e-5 is usual, of trained networks sometimes more


class CutMismatchError(ArithmeticError):
    """What is left after the cut is not the network with those groups at zero."""


def make_cut(model: nn.Module, data: Data, pruner: Pruner, planned: Planned, image: Tensor, this_run: Run) -> None:
    """Cut `model` in place and measure what that costs."""
    options, plan, kept, around = this_run.options, planned.plan, pruner.kept(), this_run.record.around
    steps = sum(this_run.record.tally.iterations.values())
    if plan.pruned:
        # Without a prune phase these are the base's weights, which have been tested.
        unchanged = around.base and not pruner.has_prune_phase
        around.before_cut = around.base if unchanged else evaluate(model, data.test_batches())
        around.acc1_before_cut_bn = reestimated_acc1(model, data)
        around.gap, around.l1_comparison = pruner.gaps(), pruner.comparison()
        this_run.tested("before the cut", steps, around.before_cut)
    if options.report_latency:
        around.latency["dense"] = latency_of(model, data.spec.channels, data.spec.size)
    if plan.pruned:
        images = next(iter(data.test_batches()))[0][:CHECKED]
        expected = outputs_of(model, lambda: zeroed_outputs(model, kept, plan.kind, images))
        masks = cut(model, kept, plan.kind, image)
        to_memory_format(model, options)
        refuse_another_network(outputs_of(model, lambda: model(images)), expected)
        this_run.cut_made({} if masks else kept, masks)
        around.after_cut = evaluate(model, data.test_batches())
        around.acc1_after_cut_bn = reestimated_acc1(model, data)
        this_run.tested("after the cut", steps, around.after_cut)
        lost = around.acc1_before_cut_bn - around.acc1_after_cut_bn
        this_run.log_line(
            f"cut: test acc1 {around.before_cut['acc1']:.2f} -> {around.after_cut['acc1']:.2f} raw, "
            f"{around.acc1_before_cut_bn:.2f} -> {around.acc1_after_cut_bn:.2f} with batch-norm statistics "
            "re-estimated on both sides"
        )
        if lost > 1:
            log.warning("notice: re-estimated, the cut cost %.2f points: what was cut still mattered", lost)
    if options.report_latency:
        around.latency["cut"] = latency_of(model, data.spec.channels, data.spec.size)
    if options.model_noise_num:
        std, copies = options.model_noise_std, options.model_noise_num
        around.noisy_ensemble_acc1 = noisy_ensemble_acc1(model, data, std, copies, options.seed)
        this_run.log_line(f"{copies} copies with noise of {std:g}: training acc1 {around.noisy_ensemble_acc1:.2f}")
    if options.check_jsv_loop:
        around.jacobian_singular_values = jacobian_singular_values(model, data, options.check_jsv_loop)
        values = "  ".join(f"{key} {value:.4g}" for key, value in around.jacobian_singular_values.items())
        this_run.log_line(f"singular values of the input-output Jacobian: {values}")


@torch.no_grad()
def outputs_of(model: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    """What `compute` gives with `model` in eval mode and in full float32."""
    training = model.training
    model.eval()
    with torch.backends.cudnn.flags(allow_tf32=False):
        outputs = compute()
    model.train(training)
    return outputs


def refuse_another_network(outputs: Tensor, expected: Tensor) -> None:
    """A guard: the cut network must compute what the whole one did with the cut groups at zero.

    Raises:
        CutMismatchError: it does not, by more than rounding.
    """
    apart = ((outputs - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    if not apart <= ROUNDING:
        raise CutMismatchError(
            f"the cut is wrong: outputs differ from the zeroed network's by {apart:.1e} of the largest; "
            "nothing is saved of it. Please report this with the command"
        )
    log.info("cut: outputs equal the zeroed network's to %.1e of the largest", apart)
