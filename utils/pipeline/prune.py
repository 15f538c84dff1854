"""The prune phase of a run, with its optional logs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from data import Data
from pruner import PRUNERS, Pruner, PruningContext
from utils.config.options import Options
from utils.config.types import error_prefix
from utils.engine.evaluate import evaluate
from utils.engine.phases import PrunePhase
from utils.engine.train import train
from utils.pipeline.finetune import finetune
from utils.pipeline.prepare import Job
from utils.reporting.console import optional
from utils.reporting.figures import norms_figure
from utils.reporting.format import format_accuracy
from utils.reporting.run_dir import Run, RunDir
from utils.reporting.snapshots import Observer, OrderLog, ScoreHistory

log = logging.getLogger("pruning")
N_SNAPSHOTS = 100  # of group scores during the prune phase, for the figure


def build_pruner(job: Job) -> Pruner:
    """Build the run's pruner and restore its state."""
    planned, checkpoint = job.planned, job.run.checkpoint
    with job.run.record.counters.timed("pick"), error_prefix(f"method {job.options.method}"):
        candidate_loss = candidate_training_loss(job.options, job.data)
        context = PruningContext(
            job.model, planned.plan, planned.schedule, planned.inherited, candidate_loss, planned.structure
        )
        pruner = PRUNERS[job.options.method].build(job.options, context)
    if checkpoint:
        pruner.load_state_dict(checkpoint.pruner)
    else:
        for name, comparison in pruner.comparison().items():
            log.info("%s: inherited selection overlaps L1's by %.1f %%", name, 100 * comparison["overlap"])
    return pruner


def candidate_training_loss(options: Options, data: Data) -> Callable[[nn.Module, dict[str, Tensor]], float]:
    """Return the Oracle's criterion: a candidate's training loss before fine-tuning.

    With ``--ft_in_oracle_pruning`` the candidate is then fine-tuned and its test accuracy logged.
    """

    def candidate_loss(candidate: nn.Module, masks: dict[str, Tensor]) -> float:
        loss = evaluate(candidate, data.train_once())["loss"]
        if options.ft_in_oracle_pruning:
            finetune(candidate, data, masks, Run(options))
            finetuned = evaluate(candidate, data.test_batches())
            log.info(
                "Oracle: candidate with training loss %.5f; fine-tuned: test %s, loss %.5f",
                loss, format_accuracy(finetuned), finetuned["loss"],
            )  # fmt: skip
        return loss

    return candidate_loss


@dataclass
class Snapshots:
    """Optional observers of the prune phase.

    Attributes:
        figure: group scores for ``filter_norms.png``.
        magnitudes: group scores for ``mag_<layer>.npz``.
        order: rank correlation with the initial order.
    """

    figure: ScoreHistory | None = None
    magnitudes: ScoreHistory | None = None
    order: OrderLog | None = None

    @property
    def observers(self) -> list[Observer]:
        return [observer for f in fields(self) if (observer := getattr(self, f.name))]


def prune(job: Job, pruner: Pruner) -> None:
    """Train until the pruner is finished; write figures and logs."""
    run, schedule = job.run, job.planned.schedule
    total = schedule.cut_after_step + 1 if schedule else 0
    snapshots = _build_snapshots(job, pruner, total)
    train(job.model, job.data, pruner, PrunePhase(job.options, pruner, total, snapshots.observers), run)
    if not isinstance(run, RunDir):
        return
    if snapshots.figure and job.planned.plan.pruned:
        with optional("filter_norms.png"):
            norms_figure(snapshots.figure, pruner.kept(), pruner.milestones, run.log_file("filter_norms.png"))
    if snapshots.magnitudes:
        with optional("magnitude log"):
            snapshots.magnitudes.write(run.log_file(""))
    if snapshots.order:
        snapshots.order.observe_last(sum(run.record.counters.iterations.values()))


def _build_snapshots(job: Job, pruner: Pruner, total_steps: int) -> Snapshots:
    options, run, checkpoint = job.options, job.run, job.run.checkpoint
    step, states = (checkpoint.step, checkpoint.observers) if checkpoint else (0, dict[str, Any]())
    snapshots = Snapshots()
    if not isinstance(run, RunDir):
        return snapshots
    if options.wg != "weight":
        with optional("filter_norms.png"):
            every = max(total_steps // N_SNAPSHOTS, 1)
            snapshots.figure = ScoreHistory(pruner, every, run.log_file("filter_norms.rows"), step)
    if options.save_mag_reg_log:
        with optional("magnitude log"):
            snapshots.magnitudes = ScoreHistory(pruner, options.plot_interval, run.log_file("mag.rows"), step)
    if options.save_order_log:
        with optional("order log"):
            file = run.log_file("order_log.csv")
            snapshots.order = OrderLog(pruner, options.plot_interval, file, states.get("OrderLog"))
    return snapshots
