"""Fine-tuning, or plain training: the last phase of a run."""

from torch import Tensor, nn

from data import Data
from pruner import WeightMasks
from utils.config.lr_schedule import schedule_notices
from utils.engine.phases import FinetunePhase
from utils.engine.train import train
from utils.pipeline.base_model import log_notices
from utils.pipeline.prepare import Job
from utils.reporting.run_dir import Run


def finetune_pruned(job: Job) -> None:
    """Fine-tune the run's network; pruned weights stay at zero."""
    after_prune_phase = "prune" in job.run.record.counters.images
    log_notices(schedule_notices(job.options, after_prune_phase))
    finetune(job.model, job.data, job.run.masks, job.run)


def finetune(model: nn.Module, data: Data, masks: dict[str, Tensor], run: Run) -> None:
    """Train `model` for the epochs of ``run.options``; weights where `masks` is False stay at zero.

    Accuracies are recorded in ``run.record.finetuning``.
    """
    device = next(model.parameters()).device
    title = "fine-tune" if run.kept or run.masks else "train"
    phase = FinetunePhase(run.options, data, run.record.finetuning, title, device)
    train(model, data, WeightMasks(model, masks), phase, run)
