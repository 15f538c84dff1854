#!/usr/bin/env python3
"""Neural pruning by growing regularization: options → data → model → plan → prune → cut → fine-tune → report."""

import json
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace

if __name__ == "__main__":  # until the program handles it, Ctrl-C ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
from torch import Tensor, nn

from data import Data, DataSpec, Shard, build_loaders, describe
from model import reinitialize
from model.cost import cost_of, example
from pruner import PRUNERS, Masks, Pruner, PruningContext
from utils.checkpoint import files
from utils.checkpoint.paths import LATEST
from utils.checkpoint.resume import ResumePoint, settings, twin_check
from utils.checkpoint.validation import refuse_other_optimizer
from utils.config.lr_schedule import schedule_notices
from utils.config.options import Options
from utils.config.types import error_prefix
from utils.dist import process_group
from utils.dist.device import device_notices, device_of
from utils.dist.launch import launch, processes_wanted
from utils.dist.signals import StoppedError, StopSignal
from utils.engine.precision import resolved, to_memory_format
from utils.engine.train import evaluate, fine_tune, prune_phase
from utils.pipeline.base_model import BaseModel, family_notice, network_of_run, starting_network
from utils.pipeline.cut import make_cut
from utils.pipeline.plan import Planned, length_notices, plan_notes, plan_run, refuse_untrained
from utils.pipeline.report import report_of
from utils.reporting.console import close_log, flush_streams, open_log, optional, prepare_streams, show
from utils.reporting.errors import CommandError, explain
from utils.reporting.figures import norms_figure
from utils.reporting.format import format_accuracy
from utils.reporting.run_dir import Run, RunDir
from utils.reporting.snapshots import History, OrderLog
from utils.reporting.tables import closing_table, evaluation_table, plan_table

log = logging.getLogger("pruning")
SNAPSHOTS = 100  # of the groups' scores during the prune phase, for the figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Every error is one line; its traceback is in ``log/log.txt``, on stderr with ``--debug``.

    Returns:
        The exit code: 0; 2 where the command ends before a run has begun; 1 where a run ends by an error; 128 + n
        where signal n has stopped it.
    """
    argv = sys.argv[1:] if argv is None else argv
    prepare_streams()
    open_log(every_line=False, quiet=not process_group.is_main_process())
    stop, code, job = StopSignal(), 0, None
    try:
        with stop.listening():
            options, notices, found = command(argv)
            open_log(options.screen_print, quiet=not process_group.is_main_process())
            if found and found.report:
                show(closing_table(found.report))
                return 0
            processes = processes_wanted(options)
            if processes > 1:
                return launch(__file__, argv, processes)
            job = prepare(options, notices, found, stop, twin_check(argv))
            if job:
                with closing(job[0]):
                    run(*job)
    except StoppedError as error:
        code = 128 + error.signal
        complain(f"{error}{job[0].how_to_resume if job else ', before the run had begun'}")
    except Exception as error:
        code = 1 if job else 2
        log.error("traceback of the error that ends the run:", exc_info=error)
        if "--debug" in argv:
            traceback.print_exc()
        complain(f"error: {explain(error, job[0].how_to_resume if job else '')}", always=bool(job))
    finally:
        close_log()
        process_group.leave()
        flush_streams()
    return code


def complain(text: str, always: bool = False) -> None:
    """One line on stderr; of several processes the first one's, unless `always`: each may fail for its own reason."""
    if always or process_group.is_main_process():
        with suppress(OSError, ValueError):  # a closed stream; the exit code is left
            print(f"main.py: {text}", file=sys.stderr, flush=True)


def command(argv: Sequence[str]) -> tuple[Options, list[str], ResumePoint | None]:
    try:
        return settings(argv)
    except ValueError as error:
        raise CommandError(str(error)) from error


def prepare(
    options: Options,
    notices: list[str],
    found: ResumePoint | None,
    stop: StopSignal,
    refuse_twin: Callable[[], None] | None,
) -> tuple[Run, Data, BaseModel, Planned, torch.device] | None:
    """Everything that can be wrong with a command is found here, before anything is written.

    Returns:
        What ``run`` needs; None where a plan or an evaluation was all that was asked for.
    """
    device = device_of(options.device, options.gpu)
    process_group.join(device, options.dist_backend)
    shard = process_group.shard()
    options = resolved(replace(options, seed=process_group.broadcast_from_main(options.seed)), device)
    with error_prefix("data_path"):
        spec = describe(options.dataset, options.data_path)
    notices += device_notices(device, options.gpu) + family_notice(options, spec)
    if options.evaluate:
        print_evaluation(options, spec, device)
        say_notices(notices)
        return None
    resumed = found.saved if found else {}
    planned = plan_run(options, spec, files.kept_so_far(resumed))
    if not found:
        notices += length_notices(options, planned)
    if options.plan:
        say_notices(notices)
        notes = [] if resumed else plan_notes(options, planned.plan)
        show(plan_table(planned.values, notes) if options.plan == "text" else json.dumps(planned.values))
        for note in notes if options.plan == "json" else []:
            log.warning("note: %s", note)
        return None
    if found and resumed:
        start = network_of_run(resumed, spec, str(found.file))
        refuse_other_optimizer(resumed["optimizer"], start.model, found.file)
    else:
        refuse_untrained(options, planned.plan)
        start = starting_network(options, spec)
    if start.pruned and not resumed and not options.directly_ft_weights:
        raise ValueError(f"{start.source} is already pruned; give a dense network to --base_model_path")
    data = loaders(options, device, shard)
    notices += data.notices + refuse_other_images(data, resumed)
    if shard.rank == 0:
        of_run = {"path": found.path, "run_id": found.run_id} if found else {}
        this_run = RunDir(options, data, start.model, stop, resumed, **of_run, refuse_twin=refuse_twin)
    else:
        this_run = Run(options, stop, resumed)
    this_run.record.images = data.sizes
    say_notices(notices)  # a wrong command is answered in one line, without them
    return this_run, data, start, planned, device


def loaders(options: Options, device: torch.device, shard: Shard) -> Data:
    with error_prefix("data_path"):
        return build_loaders(
            options.dataset, options.data_path, options.seed, options.workers, device, options.val_fraction, shard,
            options.train_images,
        )  # fmt: skip


def refuse_other_images(data: Data, resumed: dict) -> list[str]:
    """Compare the data with those that the resumed run began with.

    Returns:
        A notice where an older version's checkpoint does not say all about them.

    Raises:
        ValueError: they differ.
    """
    if not resumed:
        return []
    if tuple(resumed["record"]["images"]) != data.sizes:
        was = " and ".join(str(n) for n in resumed["record"]["images"])
        raise ValueError(f"--data_path: the run began with {was} images to train on and to test; here are {data.sizes}")
    identity = files.identity(resumed)
    if identity is None:
        return ["the checkpoint is of an older version: whether these are the same images cannot be compared"]
    if list(identity["class_names"]) != list(data.class_names):
        was, now = ([*names][:5] for names in (identity["class_names"], data.class_names))
        raise ValueError(f"--data_path: the run began with the classes {was}; here they are {now}")
    if identity["fingerprint"] != data.fingerprint:
        raise ValueError(
            f"--data_path: these are not the images that the run began with, though as many (fingerprint "
            f"{data.fingerprint}, was {identity['fingerprint']})"
        )
    return []


def say_notices(notices: list[str]) -> None:
    for notice in notices:
        log.warning("notice: %s", notice)


def run(this_run: Run, data: Data, start: BaseModel, planned: Planned, device: torch.device) -> None:
    """One run, from the starting network, or from where it was killed, to the report."""
    options, record, resumed = this_run.options, this_run.record, this_run.resumed
    model = to_memory_format(start.model.to(device), options)
    shard = process_group.shard()
    torch.manual_seed(options.seed + shard.rank)  # dropout draws other numbers in each process
    log.info("torch %s on %s, seed %d; every setting is in params.yaml", torch.__version__, device, options.seed)
    if options.note:
        log.info("note: %s", options.note)
    this_run.log_line(plan_table(planned.values, []))
    if start.pruned:
        this_run.cut_made(start.kept, {name: mask.to(device) for name, mask in start.masks.items()})
    if resumed:
        say_resumed(this_run, start, shard.of)
    else:
        open_run(this_run, model, start, data)

    image = example(model, data.spec.channels, data.spec.size)
    if resumed.get("phase") != "finetune" and not start.pruned:
        judge = training_loss_as_cut(options, data)
        with record.tally.timed("pick"):
            pruner = PRUNERS[options.method].build(
                options, PruningContext(model, planned.plan, planned.inherited, judge, image)
            )
        if resumed:
            pruner.load_state_dict(resumed["pruner"])
        else:
            for name, found in pruner.comparison().items():
                log.info("%s inherited; %.1f %% of the pick is L1's own", name, 100 * found["overlap"])
        if pruner.has_prune_phase:
            prune(model, data, pruner, planned, this_run)
        with record.tally.timed("cut"):
            make_cut(model, data, pruner, planned, image, this_run)
        if options.reinit and "reinit" not in pruner.ignores:
            reinitialize(model, options.reinit)
    keeper = Masks(model, this_run.masks)
    if resumed.get("phase") != "finetune":
        this_run.save_pruned(model)
        names = ["checkpoint_best"] * (not options.epochs) + ["checkpoint_just_finished_prune", LATEST]
        this_run.save(*names, phase="finetune", step=0, model=model)

    say_notices(schedule_notices(options, after_prune_phase="prune" in record.tally.images))
    fine_tune(model, data, keeper, this_run)
    if shard.rank == 0:
        report = report_of(options, data.spec, planned, record, device, str(this_run.path))
        this_run.finish(report)
        this_run.log_line(closing_table(report))


def open_run(this_run: Run, model: nn.Module, start: BaseModel, data: Data) -> None:
    """What is done once, before the first step: the data are described, the base is tested."""
    record = this_run.record
    this_run.log_line(data.summary)
    record.base = start.source
    if this_run.options.save_init_model:
        this_run.save("checkpoint_init", phase="prune", step=0, model=model)
    if start.source:
        with record.tally.timed("base"):
            record.around.base = evaluate(model, data.test_batches())
        this_run.tested("base", 0, record.around.base)
        this_run.log_line(f"base: test {format_accuracy(record.around.base)} ({start.source})")


def say_resumed(this_run: Run, start: BaseModel, processes: int) -> None:
    saved = this_run.resumed
    this_run.log_line(f"resumed from {start.source}, after {saved['step']} steps of the {saved['phase']} phase")
    if len(saved["rng"]) != processes:
        log.warning(
            "notice: saved by %d process(es), resumed by %d: the result will not be the same to the last bit",
            len(saved["rng"]), processes,
        )  # fmt: skip


def training_loss_as_cut(options: Options, data: Data) -> Callable[[nn.Module, dict[str, Tensor]], float]:
    """The Oracle's criterion: a candidate's training loss before any fine-tuning.

    With ``--ft_in_oracle_pruning`` the candidate is fine-tuned afterwards and its test accuracy is logged.
    """

    def judge(candidate: nn.Module, masks: dict[str, Tensor]) -> float:
        loss = evaluate(candidate, data.train_once())["loss"]
        if options.ft_in_oracle_pruning:
            fine_tune(candidate, data, Masks(candidate, masks), Run(options))
            tuned = evaluate(candidate, data.test_batches())
            log.info(
                "Oracle: candidate of training loss %.5f; fine-tuned: test %s, loss %.5f",
                loss, format_accuracy(tuned), tuned["loss"],
            )  # fmt: skip
        return loss

    return judge


def prune(model: nn.Module, data: Data, pruner: Pruner, planned: Planned, this_run: Run) -> None:
    """The prune phase, with the logs of it that were asked for."""
    options, saved = this_run.options, this_run.resumed_in("prune")
    steps = planned.schedule.cut_after_step + 1
    begun, seen = saved.get("step", 0), saved.get("observers", {})
    figure = magnitudes = order = None
    if this_run.writes:
        if options.wg != "weight":
            with optional("filter_norms.png"):
                figure = History(pruner, max(steps // SNAPSHOTS, 1), this_run.log_file("filter_norms.rows"), begun)
        if options.save_mag_reg_log:
            with optional("magnitude log"):
                magnitudes = History(pruner, options.plot_interval, this_run.log_file("mag.rows"), begun)
        if options.save_order_log:
            with optional("order log"):
                file = this_run.log_file("order_log.csv")
                order = OrderLog(pruner, options.plot_interval, file, seen.get("OrderLog"))
    prune_phase(model, data, pruner, this_run, steps, [watcher for watcher in (figure, magnitudes, order) if watcher])
    if figure and planned.plan.pruned:
        with optional("filter_norms.png"):
            norms_figure(figure, pruner.kept(), pruner.milestones, this_run.log_file("filter_norms.png"))
    if magnitudes:
        with optional("magnitude log"):
            magnitudes.write(this_run.log_file(""))
    if order:
        order.observe_last(sum(this_run.record.tally.iterations.values()))


def print_evaluation(options: Options, spec: DataSpec, device: torch.device) -> None:
    """``--evaluate``: accuracy and costs of a file, dense or pruned; writes nothing."""
    start = starting_network(options, spec)
    model = start.model.to(device)
    data = loaders(options, device, process_group.shard())
    accuracy = evaluate(model, data.test_batches())
    cost = cost_of(model, spec.channels, spec.size)
    show(evaluation_table(start.source, spec.name, accuracy, cost, start.masks))


if __name__ == "__main__":
    sys.exit(main())
