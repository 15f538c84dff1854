"""Check a command, load its inputs and, last of all, open the run directory."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from data import Data, DataSource, DataSpec
from model import example, preprocessing_of
from pruner import prove
from utils.checkpoint.resume import Command
from utils.checkpoint.validation import check_optimizer_state
from utils.config.options import Options
from utils.config.types import error_prefix
from utils.dist.device import device_notices, resolve_device, set_up_cpu
from utils.dist.heartbeat import start_heartbeat
from utils.dist.process_group import broadcast_from_main, init_process_group, shard
from utils.dist.signals import StopSignal
from utils.engine.precision import resolve_auto, resolve_compile
from utils.pipeline.base_model import (
    BaseModel,
    family_notice,
    load_base_model,
    log_notices,
    resumed_model,
)
from utils.pipeline.plan import Planned, plan_run
from utils.pipeline.plan_notices import length_notices, plan_notes, refuse_untrained
from utils.pipeline.printed import print_evaluation, print_plan
from utils.pipeline.run_data import check_same_data, check_trained_on, load_data
from utils.reporting.errors import end_process
from utils.reporting.run_dir import Run, RunDir, how_to_resume

log = logging.getLogger("pruning")


@dataclass
class Job:
    """A run, ready to start or resume.

    Attributes:
        base: the base network or, when resumed, that of the checkpoint.
    """

    options: Options
    device: torch.device
    data: Data
    base: BaseModel
    planned: Planned
    run: Run

    @property
    def model(self) -> nn.Module:
        return self.base.model


def prepare(command: Command, stop: StopSignal) -> Job | None:
    """Check a command, load its inputs and open the run directory; no error may come after that.

    A check without images belongs in ``plan_run``, so that ``--plan`` makes it, too; of a network's weights, in
    ``load_base_model``; of the images, after ``load_data``. Each is to fail on all ranks alike.

    Returns:
        None for ``--plan`` and ``--evaluate``, whose result is printed.

    Raises:
        ValueError: the command cannot be carried out.
    """
    options, notices = command.options, list(command.notices)
    device = resolve_device(options.device, options.gpu)
    if device.type == "cpu":
        set_up_cpu()
    if options.sync_bn and device.type == "cpu":
        raise ValueError("--sync_bn needs GPUs: torch has synchronized batch norm for CUDA alone")
    init_process_group(device, options.dist_backend)
    run_dir: Path | None = None  # of rank 0, once it is open
    start_heartbeat(lambda lost: end_process(lost + (how_to_resume(run_dir, options.arch) if run_dir else "")))
    options = replace(options, seed=broadcast_from_main(options.seed))
    with error_prefix("data_path"):
        preprocessing = preprocessing_of(options.arch)
        mean_std = (preprocessing.mean, preprocessing.std) if preprocessing else None
        size = preprocessing.size if preprocessing else None
        source = DataSource(options.dataset, options.data_path, size, mean_std)
    options = resolve_auto(options, device, source.spec.size)
    notices += device_notices(device, options.gpu) + family_notice(options, source.spec)
    if options.evaluate:
        print_evaluation(options, source, device)
        log_notices(notices)
        return None
    checkpoint = command.resume.checkpoint if command.resume else None
    planned = plan_run(options, source.spec, checkpoint)
    if not command.resume:
        notices += length_notices(options, planned)
    if options.plan:
        log_notices(notices)
        print_plan(options, planned, [] if checkpoint else plan_notes(options, planned.plan))
        return None
    base = _base_model(command, options, source.spec, planned)  # drops the weights of `checkpoint`, which plans read
    if not checkpoint:
        with error_prefix(f"arch {options.arch}"):
            _prove(base, planned, source.spec)
    data = load_data(source, options, device)
    notices += base.notices + data.notices
    notices += check_same_data(data, checkpoint) if checkpoint else check_trained_on(base, data)
    options, compile_notices = resolve_compile(options, device, planned.training_images(options, len(data.train)))
    notices += compile_notices
    run = _open_run(command, options, data, base, stop)
    run_dir = broadcast_from_main(run.path if isinstance(run, RunDir) else None)
    run.record.images, run.record.base_shapes = data.sizes, planned.base_shapes
    log_notices(notices)  # after all checks: an error is a single line
    return Job(options, device, data, base, planned, run)


def _prove(base: BaseModel, planned: Planned, spec: DataSpec) -> None:
    """Prove the planned cut before training."""
    if planned.structure and not base.pruned:
        prove(base.model, planned.plan, planned.structure, example(base.model, spec.channels, spec.size))


def _base_model(command: Command, options: Options, spec: DataSpec, planned: Planned) -> BaseModel:
    resume = command.resume
    if resume and resume.checkpoint:
        base = resumed_model(resume.checkpoint, spec, str(resume.file))
        check_optimizer_state(resume.checkpoint.optimizer, base.model, resume.file)
        return base
    refuse_untrained(options, planned.plan)
    base = load_base_model(options, spec)
    if planned.base_shapes:  # pruned again: treated as the dense network
        return BaseModel(base.model, base.source, data=base.data, notices=base.notices)
    if base.pruned and not options.directly_ft_weights:
        instead = "pass it to --directly_ft_weights" if options.method == "none" else "pass a dense network"
        raise ValueError(f"--base_model_path: {base.source} is already pruned: {instead}")
    return base


def _open_run(command: Command, options: Options, data: Data, base: BaseModel, stop: StopSignal) -> Run:
    """Open the run directory; on other ranks, a run that writes nothing."""
    resume = command.resume
    checkpoint = resume.checkpoint if resume else None
    if shard().rank:
        return Run(options, stop, checkpoint)
    return RunDir(
        options,
        data,
        base.model,
        stop,
        checkpoint,
        path=resume.path if resume else None,
        run_id=resume.run_id if resume else None,
        refuse_duplicate=command.refuse_duplicate,
    )
