"""Check a command and load its inputs before anything is written."""

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from data import Data, DataSource, DataSpec
from model import cost_of, example, preprocessing_of
from pruner import prove
from utils.checkpoint.resume import Command
from utils.checkpoint.state import Checkpoint
from utils.checkpoint.validation import check_optimizer_state
from utils.config.options import Options
from utils.config.types import error_prefix
from utils.dist.device import device_notices, resolve_device, set_up_cpu
from utils.dist.heartbeat import start_heartbeat
from utils.dist.process_group import broadcast_from_main, init_process_group, shard
from utils.dist.signals import StopSignal
from utils.engine.evaluate import evaluate
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
from utils.reporting.console import show
from utils.reporting.errors import end_process
from utils.reporting.run_dir import Run, RunDir, how_to_resume
from utils.reporting.tables import evaluation_table, plan_table

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
    """Check a command and load its inputs.

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
    base = _base_model(command, options, source.spec, planned)
    if not checkpoint:
        with error_prefix(f"arch {options.arch}"):
            _prove(base, planned, source.spec)
    data = _load(source, options, device)
    notices += data.notices + (check_same_data(data, checkpoint) if checkpoint else check_trained_on(base, data))
    options, missing = resolve_compile(options, device, planned.training_images(options, len(data.train)))
    notices += missing
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
        return BaseModel(base.model, base.source, data=base.data)
    if base.pruned and not options.directly_ft_weights:
        raise ValueError(f"{base.source} is already pruned: pass a dense network to --base_model_path")
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


def _load(source: DataSource, options: Options, device: torch.device) -> Data:
    with error_prefix("data_path"):
        return source.load(options.seed, options.workers, device, options.val_fraction, shard(), options.train_images)


def check_same_data(data: Data, checkpoint: Checkpoint) -> list[str]:
    """Check that the data are those of the resumed run.

    Returns:
        A notice if the checkpoint of an older version has no fingerprint.

    Raises:
        ValueError: they differ.
    """
    n_train, n_test = checkpoint.record["images"]
    if (n_train, n_test) != data.sizes:
        raise ValueError(
            f"--data_path: the run has {n_train} training and {n_test} test images; these data have "
            f"{data.sizes[0]} and {data.sizes[1]}"
        )
    identity = checkpoint.identity
    if identity is None:
        return [
            "the checkpoint is of an older version without a fingerprint: cannot verify that the images are the same"
        ]
    if list(identity["class_names"]) != list(data.class_names):
        stored, actual = ([*names][:5] for names in (identity["class_names"], data.class_names))
        raise ValueError(f"--data_path: the run has classes {stored}, these data have {actual}")
    if identity["fingerprint"] != data.fingerprint:
        raise ValueError(
            f"--data_path: these are not the images of the run: the fingerprint is {data.fingerprint}, was "
            f"{identity['fingerprint']}"
        )
    return []


def check_trained_on(base: BaseModel, data: Data) -> list[str]:
    """Check that a network is used on the classes that it was trained on.

    Returns:
        A notice if its images were normalized otherwise.

    Raises:
        ValueError: their names or order differ.
    """
    names, spec = [*base.data.get("class_names", ())], asdict(data.spec)
    if names and data.class_names and names != [*data.class_names]:
        i = next((i for i, pair in enumerate(zip(names, data.class_names, strict=False)) if pair[0] != pair[1]), -1)
        raise ValueError(
            f"--data_path: {base.source} was trained on other classes: class {i} is {names[i]!r} there, and "
            f"{data.class_names[i]!r} in these data"
        )
    others = [key for key in ("mean", "std") if key in base.data and [*base.data[key]] != [*spec[key]]]
    return [
        f"{base.source} was trained on images of {key} {tuple(base.data[key])}; these are normalized by {spec[key]}"
        for key in others
    ]


def print_plan(options: Options, planned: Planned, notes: list[str]) -> None:
    """Print ``--plan`` as text or JSON, with `notes` on errors that would stop a run."""
    if options.plan == "text":
        show(plan_table(planned.values, notes))
        return
    show(json.dumps(planned.values))
    for note in notes:
        log.warning("note: %s", note)


def print_evaluation(options: Options, source: DataSource, device: torch.device) -> None:
    """Print ``--evaluate``: accuracy and costs of a network.

    Raises:
        ValueError: several networks are named.
    """
    named = [f"--{flag}" for flag in ("base_model_path", "directly_ft_weights", "pretrained") if getattr(options, flag)]
    if len(named) > 1:
        raise ValueError(f"--evaluate tests one network: pass one of {' and '.join(named)}")
    base = load_base_model(options, source.spec)
    model, data = base.model.to(device), _load(source, options, device)
    log_notices(check_trained_on(base, data))
    accuracy = evaluate(model, data.test_batches())
    cost = cost_of(model, source.spec.channels, source.spec.size)
    show(evaluation_table(str(base.source), source.spec.name, accuracy, cost, base.masks))
