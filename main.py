#!/usr/bin/env python3
"""Neural pruning by growing regularization: options → data → model → plan → prune → cut → fine-tune → report."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor, nn

from data import BadImageError, Data, DataSpec, Shard, build_loaders, describe
from model import reinitialise
from pruner import PRUNERS, Masks, Pruner, Setting
from utils import distributed
from utils.cost import cost_of, example
from utils.cutting import make_cut
from utils.device import device_notices, device_of
from utils.figures import norms_figure
from utils.history import History, OrderLog
from utils.launch import launch, processes_wanted
from utils.learning_rate import schedule_notices
from utils.network import Start, family_notice, network_of_run, starting_network
from utils.options import Options
from utils.parsers import about
from utils.planning import Planned, plan_notes, plan_run, refuse_untrained
from utils.report import report_of
from utils.resume import Found, settings
from utils.run import LATEST, Run, RunDir, close_log, open_log, show
from utils.speed import laid_out, resolved
from utils.stopping import Stop, Stopped
from utils.tables import closing_table, evaluation_table, plan_table
from utils.training import evaluate, fine_tune, prune_phase, shown

log = logging.getLogger("pruning")
LOOKS = 100  # at the groups' scores during the prune phase, for the figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        The exit code: 0; 2 for a wrong command; 1 for a run that diverged or could not be written; 128 + n for one
        that signal n has stopped.
    """
    argv = sys.argv[1:] if argv is None else argv
    stop, code, job = Stop(), 0, None
    first = os.environ.get("RANK", "0") == "0"  # of several processes, the one that speaks
    try:
        with stop.listening():
            try:
                options, notices, found = settings(argv)
                processes = processes_wanted(options)
            except ValueError as error:
                raise Wrong(str(error)) from error
            open_log(options.screen_print, quiet=not first)
            if found and found.report:
                show(closing_table(found.report))
                return 0
            if processes > 1:
                return launch(__file__, argv, processes)
            job = prepare(options, notices, found, stop)
            if job:
                with closing(job[0]):
                    run(*job)
    except Stopped as error:
        code = 128 + error.signal
        if first:
            way = f"; go on with it: main.py --resume_path {job[0].path}" if job else ", before the run had begun"
            print(f"main.py: {error}{way}", file=sys.stderr)
    except (Wrong, BadImageError, ArithmeticError, OSError) as error:
        code = 2 if isinstance(error, Wrong) else 1
        if first or code == 1:
            print(f"main.py: error: {' '.join(str(error).split())}", file=sys.stderr)  # on one line
    finally:
        close_log()
        distributed.leave()
    return code


class Wrong(Exception):
    """The command asks for what cannot be; in one line."""


def prepare(
    options: Options, notices: list[str], found: Found | None, stop: Stop
) -> tuple[Run, Data, Start, Planned, torch.device] | None:
    """Everything that can be wrong with a command is found here, before anything is written.

    Returns:
        What ``run`` needs; None where a plan or an evaluation was all that was asked for.
    """
    try:
        device = device_of(options.device, options.gpu)
        distributed.join(device, options.dist_backend)
        shard = distributed.shard()
        options = resolved(replace(options, seed=distributed.from_first(options.seed)), device)
        with about("data_path"):
            spec = describe(options.dataset, options.data_path)
        notices += device_notices(device, options.gpu) + family_notice(options, spec)
        if options.evaluate:
            print_evaluation(options, spec, device)
            say_notices(notices)
            return None
        planned = plan_run(options, spec)
        if options.plan:
            say_notices(notices)
            notes = plan_notes(options, planned.plan)
            show(plan_table(planned.values, notes) if options.plan == "text" else json.dumps(planned.values))
            for note in notes if options.plan == "json" else []:
                log.warning("note: %s", note)
            return None
        resumed = found.saved if found else {}
        if resumed:
            start = network_of_run(resumed, spec, str(found.file))
        else:
            refuse_untrained(options, planned.plan)
            start = starting_network(options, spec)
        if start.pruned and not resumed and not options.directly_ft_weights:
            raise ValueError(f"{start.source} is already pruned; give a dense network to --base_model_path")
        data = loaders(options, device, shard)
        refuse_other_images(data, resumed)
        path = found.path if found else None
        this_run = (
            RunDir(options, spec, start.model, stop, resumed, path) if shard.rank == 0 else Run(options, stop, resumed)
        )
        this_run.record.images = data.sizes
        notices += data.notices
        say_notices(notices)  # a wrong command is answered in one line, without them
        return this_run, data, start, planned, device
    except ValueError as error:
        raise Wrong(str(error)) from error


def loaders(options: Options, device: torch.device, shard: Shard) -> Data:
    with about("data_path"):
        return build_loaders(
            options.dataset, options.data_path, options.seed, options.workers, device, options.val_fraction, shard,
            options.train_images,
        )  # fmt: skip


def refuse_other_images(data: Data, resumed: dict) -> None:
    if resumed and tuple(resumed["record"]["images"]) != data.sizes:
        was = " and ".join(str(n) for n in resumed["record"]["images"])
        raise ValueError(f"the run began with {was} images to train on and to test; here are {data.sizes}")


def say_notices(notices: list[str]) -> None:
    for notice in notices:
        log.warning("notice: %s", notice)


def run(this_run: Run, data: Data, start: Start, planned: Planned, device: torch.device) -> None:
    """One run, from the starting network, or from where it was killed, to the report."""
    options, record, resumed = this_run.options, this_run.record, this_run.resumed
    model = laid_out(start.model.to(device), options)
    shard = distributed.shard()
    torch.manual_seed(options.seed + shard.rank)  # dropout draws other numbers in each process
    log.info("torch %s on %s, seed %d; every setting is in params.yaml", torch.__version__, device, options.seed)
    if options.note:
        log.info("note: %s", options.note)
    this_run.say(plan_table(planned.values, []))
    if start.pruned:
        this_run.cut_made(start.kept, {name: mask.to(device) for name, mask in start.masks.items()})
    if resumed:
        say_resumed(this_run, start, shard.of)
    else:
        open_run(this_run, model, start, data)

    image = example(model, data.spec.channels, data.spec.size)
    if resumed.get("phase") != "finetune" and not start.pruned:
        judge = training_loss_after(options, data)
        with record.tally.timed("pick"):
            pruner = PRUNERS[options.method].build(
                options, Setting(model, planned.plan, planned.inherited, judge, image)
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
            reinitialise(model, options.reinit)
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
        this_run.say(closing_table(report))


def open_run(this_run: Run, model: nn.Module, start: Start, data: Data) -> None:
    """What is done once, before the first step: the data are described, the base is tested."""
    record = this_run.record
    this_run.say(data.summary)
    record.base = start.source
    if this_run.options.save_init_model:
        this_run.save("checkpoint_init", phase="prune", step=0, model=model)
    if start.source:
        with record.tally.timed("base"):
            record.around.base = evaluate(model, data.test_batches())
        this_run.tested("base", 0, record.around.base)
        this_run.say(f"base: test {shown(record.around.base)} ({start.source})")


def say_resumed(this_run: Run, start: Start, processes: int) -> None:
    saved = this_run.resumed
    this_run.say(f"going on from {start.source}: {saved['step']} steps of the {saved['phase']} phase are made")
    if len(saved["rng"]) != processes:
        log.warning(
            "notice: saved by %d process(es), going on in %d: the result will not be the same to the last bit",
            len(saved["rng"]), processes,
        )  # fmt: skip


def training_loss_after(options: Options, data: Data) -> Callable[[nn.Module, dict[str, Tensor]], float]:
    """What the Oracle judges a candidate by: its training loss, after fine-tuning it where that is asked for."""

    def judge(candidate: nn.Module, masks: dict[str, Tensor]) -> float:
        if options.ft_in_oracle_pruning:
            fine_tune(candidate, data, Masks(candidate, masks), Run(options))
        return evaluate(candidate, data.train_once())["loss"]

    return judge


def prune(model: nn.Module, data: Data, pruner: Pruner, planned: Planned, this_run: Run) -> None:
    """The prune phase, with the logs of it that were asked for."""
    options, saved = this_run.options, this_run.resumed_in("prune")
    steps = planned.schedule.cut_after_step + 1
    begun, seen = saved.get("step", 0), saved.get("observers", {})
    figure = magnitudes = order = None
    if this_run.writes:
        if options.wg != "weight":
            figure = History(pruner, max(steps // LOOKS, 1), this_run.log_file("filter_norms.rows"), begun)
        if options.save_mag_reg_log:
            magnitudes = History(pruner, options.plot_interval, this_run.log_file("mag.rows"), begun)
        if options.save_order_log:
            order = OrderLog(pruner, options.plot_interval, this_run.log_file("order_log.csv"), seen.get("OrderLog"))
    prune_phase(model, data, pruner, this_run, steps, [watcher for watcher in (figure, magnitudes, order) if watcher])
    if figure and planned.plan.pruned:
        norms_figure(figure, pruner.kept(), pruner.milestones, this_run.log_file("filter_norms.png"))
    if magnitudes:
        magnitudes.write(this_run.log_file(""))
    if order:
        order.look(sum(this_run.record.tally.iterations.values()))


def print_evaluation(options: Options, spec: DataSpec, device: torch.device) -> None:
    """``--evaluate``: accuracy and costs of a file, dense or pruned; writes nothing."""
    if not options.base_model_path:
        raise ValueError("--evaluate needs --base_model_path FILE")
    start = starting_network(options, spec)
    model = start.model.to(device)
    data = loaders(options, device, distributed.shard())
    accuracy = evaluate(model, data.test_batches())
    cost = cost_of(model, spec.channels, spec.size)
    show(evaluation_table(start.source, spec.name, accuracy, cost, start.masks))


if __name__ == "__main__":
    sys.exit(main())
