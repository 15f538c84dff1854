"""Start or resume a run: log, save and test before the first step."""

import logging

import torch
from torch import nn

from utils.dist.process_group import shard
from utils.engine.evaluate import evaluate
from utils.engine.precision import to_memory_format
from utils.pipeline.prepare import Job
from utils.reporting.format import format_accuracy
from utils.reporting.tables import plan_table

log = logging.getLogger("pruning")


def start(job: Job) -> None:
    """Put the network on the device and log the plan; test the base network of a new run."""
    options, run, base = job.options, job.run, job.base
    to_memory_format(base.model.to(job.device), options)
    if options.sync_bn:  # in place; the parameters stay
        nn.SyncBatchNorm.convert_sync_batchnorm(base.model)
    torch.manual_seed(options.seed + shard().rank)  # dropout differs between ranks
    log.info("torch %s on %s, seed %d; all settings are in params.yaml", torch.__version__, job.device, options.seed)
    if options.note:
        log.info("note: %s", options.note)
    run.log_line(plan_table(job.planned.values, []))
    if base.pruned:
        run.set_pruned(base.kept, {name: mask.to(job.device) for name, mask in base.masks.items()})
    if run.checkpoint:
        _log_resumed(job)
    else:
        _log_start(job)


def _log_start(job: Job) -> None:
    """Log the data and test the base network of a new run."""
    run, base = job.run, job.base
    run.log_line(job.data.summary)
    run.record.base = base.source
    if job.options.save_init_model:
        run.save("checkpoint_init", phase="prune", step=0, model=base.model)
    if base.source:
        with run.record.counters.timed("base"):
            accuracy = run.record.pruning.base = evaluate(base.model, job.data.test_batches())
        run.log_test("base", 0, accuracy)
        run.log_line(f"base: test {format_accuracy(accuracy)} ({base.source})")


def _log_resumed(job: Job) -> None:
    checkpoint, n_processes = job.run.checkpoint, shard().world_size
    assert checkpoint is not None
    job.run.log_line(f"resumed from {job.base.source}, after {checkpoint.step} steps of the {checkpoint.phase} phase")
    if len(checkpoint.rng) != n_processes:
        log.warning(
            "notice: saved by %d process(es), resumed by %d: the result will not be bit-identical",
            len(checkpoint.rng), n_processes,
        )  # fmt: skip
