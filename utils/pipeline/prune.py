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
SNAPSHOTS = 100  # of the groups' scores during the prune phase, for the figure


def build_pruner(job: Job) -> Pruner:
    """Build the pruner of the run and restore its state."""
    planned, checkpoint = job.planned, job.run.checkpoint
    with job.run.record.counters.timed("pick"), error_prefix(f"method {job.options.method}"):
        candidate_loss = training_loss_as_cut(job.options, job.data)
        context = PruningContext(
            job.model, planned.plan, planned.schedule, planned.inherited, candidate_loss, planned.structure
        )
        pruner = PRUNERS[job.options.method].build(job.options, context)
    if checkpoint:
        pruner.load_state_dict(checkpoint.pruner)
    else:
        for name, compared in pruner.comparison().items():
            log.info("%s inherited; %.1f %% of the pick is L1's own", name, 100 * compared["overlap"])
    return pruner


def training_loss_as_cut(options: Options, data: Data) -> Callable[[nn.Module, dict[str, Tensor]], float]:
    """The Oracle's criterion: a candidate's training loss before any fine-tuning.

    With ``--ft_in_oracle_pruning`` the candidate is fine-tuned afterwards and its test accuracy is logged.
    """

    def candidate_loss(candidate: nn.Module, masks: dict[str, Tensor]) -> float:
        loss = evaluate(candidate, data.train_once())["loss"]
        if options.ft_in_oracle_pruning:
            finetune(candidate, data, masks, Run(options))
            tuned = evaluate(candidate, data.test_batches())
            log.info(
                "Oracle: candidate of training loss %.5f; fine-tuned: test %s, loss %.5f",
                loss, format_accuracy(tuned), tuned["loss"],
            )  # fmt: skip
        return loss

    return candidate_loss


@dataclass
class Snapshots:
    """Optional records of the prune phase.

    Attributes:
        figure: of the groups' scores, for ``filter_norms.png``.
        magnitudes: the same for ``mag_<layer>.npz``.
        order: rank agreement with the starting order.
    """

    figure: ScoreHistory | None = None
    magnitudes: ScoreHistory | None = None
    order: OrderLog | None = None

    @property
    def observers(self) -> list[Observer]:
        found = [getattr(self, f.name) for f in fields(self)]
        return [observer for observer in found if observer]


def prune(job: Job, pruner: Pruner) -> None:
    """Train until the pruner has finished; write figures and logs."""
    run, schedule = job.run, job.planned.schedule
    total = schedule.cut_after_step + 1 if schedule else 0
    taken = _snapshots(job, pruner, total)
    train(job.model, job.data, pruner, PrunePhase(job.options, pruner, total, taken.observers), run)
    if not isinstance(run, RunDir):
        return
    if taken.figure and job.planned.plan.pruned:
        with optional("filter_norms.png"):
            norms_figure(taken.figure, pruner.kept(), pruner.milestones, run.log_file("filter_norms.png"))
    if taken.magnitudes:
        with optional("magnitude log"):
            taken.magnitudes.write(run.log_file(""))
    if taken.order:
        taken.order.observe_last(sum(run.record.counters.iterations.values()))


def _snapshots(job: Job, pruner: Pruner, total_steps: int) -> Snapshots:
    options, run, checkpoint = job.options, job.run, job.run.checkpoint
    step, states = (checkpoint.step, checkpoint.observers) if checkpoint else (0, dict[str, Any]())
    taken = Snapshots()
    if not isinstance(run, RunDir):
        return taken
    if options.wg != "weight":
        with optional("filter_norms.png"):
            every = max(total_steps // SNAPSHOTS, 1)
            taken.figure = ScoreHistory(pruner, every, run.log_file("filter_norms.rows"), step)
    if options.save_mag_reg_log:
        with optional("magnitude log"):
            taken.magnitudes = ScoreHistory(pruner, options.plot_interval, run.log_file("mag.rows"), step)
    if options.save_order_log:
        with optional("order log"):
            file = run.log_file("order_log.csv")
            taken.order = OrderLog(pruner, options.plot_interval, file, states.get("OrderLog"))
    return taken
