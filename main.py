#!/usr/bin/env python3
"""Neural pruning by growing regularization: options → data → model → plan → prune → cut → fine-tune → report."""

import json
import logging
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from data import BadImageError, Data, DataSpec, build_loaders, describe
from model import reinitialise
from pruner import PRUNERS, Masks, Pruner, Setting, cut
from utils.cost import cost_of, example
from utils.device import device_notices, device_of
from utils.figures import norms_figure
from utils.history import History, OrderLog
from utils.learning_rate import schedule_notices
from utils.network import Start, family_notice, starting_network
from utils.options import Options, parse
from utils.planning import Planned, plan_notes, plan_run, refuse_untrained
from utils.probes import jacobian_singular_values, noisy_ensemble_acc1
from utils.report import Around, report_of
from utils.run import RunDir, Unrecorded, close_log, open_log
from utils.tables import closing_table, evaluation_table, plan_table
from utils.training import Tally, evaluate, fine_tune, prune_phase, reestimated_acc1, shown

log = logging.getLogger("pruning")
LOOKS = 100  # at the groups' scores during the prune phase, for the figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 2 for a wrong command, 1 for a run that diverged."""
    try:
        job = prepare(sys.argv[1:] if argv is None else argv)
        if job:
            run(*job)
        return 0
    except (Wrong, BadImageError, ArithmeticError) as error:
        print(f"main.py: error: {' '.join(str(error).split())}", file=sys.stderr)  # on one line
        return 2 if isinstance(error, Wrong) else 1
    finally:
        close_log()


class Wrong(Exception):
    """The command asks for what cannot be; in one line."""


def prepare(argv: Sequence[str]) -> tuple[RunDir, Data, Start, Planned, torch.device] | None:
    """Everything that can be wrong with a command is found here, before anything is written.

    Returns:
        What ``run`` needs; None where a plan or an evaluation was all that was asked for.
    """
    try:
        options, notices = parse(argv)
        open_log(options.screen_print)
        device = device_of(options.device, options.gpu)
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
            print(plan_table(planned.values, notes) if options.plan == "text" else json.dumps(planned.values))
            for note in notes if options.plan == "json" else []:
                log.warning("note: %s", note)
            return None
        refuse_untrained(options, planned.plan)
        start = starting_network(options, spec)
        if start.pruned and not options.directly_ft_weights:
            raise ValueError(f"{start.source} is already pruned; give a dense network to --base_model_path")
        data = build_loaders(options.dataset, options.data_path, options.seed, options.workers, device)
        run_dir = RunDir(options, data.spec, start.model)
        say_notices(notices)  # a wrong command is answered in one line, without them
        return run_dir, data, start, planned, device
    except ValueError as error:
        raise Wrong(str(error)) from error


def say_notices(notices: list[str]) -> None:
    for notice in notices:
        log.warning("notice: %s", notice)


def run(run_dir: RunDir, data: Data, start: Start, planned: Planned, device: torch.device) -> None:
    """One run, from the starting network to the report."""
    options, model = run_dir.options, start.model.to(device)
    tally, around = Tally(), Around()
    log.info("torch %s on %s, seed %d; every setting is in params.yaml", torch.__version__, device, options.seed)
    if options.note:
        log.info("note: %s", options.note)
    run_dir.say(plan_table(planned.values, []))
    if start.pruned:
        run_dir.cut_made(start.kept, {name: mask.to(device) for name, mask in start.masks.items()})
    if options.save_init_model:
        run_dir.save("checkpoint_init", phase="prune", step=0, model=model)
    if start.source:
        with tally.timed("base"):
            around.base = evaluate(model, data.test_batches())
        run_dir.say(f"base: test {shown(around.base)} ({start.source})")

    if not start.pruned:
        image = example(model, data.spec.channels, data.spec.size)
        judge = training_loss_after(options, data)
        with tally.timed("pick"):
            pruner = PRUNERS[options.method].build(
                options, Setting(model, planned.plan, planned.inherited, judge, image)
            )
        if not pruner.finished:
            prune(model, data, pruner, planned, run_dir, tally)
        with tally.timed("cut"):
            make_cut(model, data, pruner, planned, image, run_dir, around)
        if options.reinit and "reinit" not in pruner.ignores:
            reinitialise(model, options.reinit)
    keeper = Masks(model, run_dir.masks)
    names = ["checkpoint_just_finished_prune"] + (["checkpoint", "checkpoint_best"] if not options.epochs else [])
    run_dir.save(*names, phase="finetune", step=0, model=model)
    run_dir.save_pruned(model)

    say_notices(schedule_notices(options, after_prune_phase="prune" in tally.images_per_second))
    tuned = fine_tune(model, data, keeper, run_dir, tally)
    report = report_of(options, data.spec, planned, around, tuned, tally, start.source, device, str(run_dir.path))
    run_dir.write_report(report)
    run_dir.say(closing_table(report))


def training_loss_after(options: Options, data: Data) -> Callable[[nn.Module, dict[str, Tensor]], float]:
    """What the Oracle judges a candidate by: its training loss, after fine-tuning it where that is asked for."""

    def judge(candidate: nn.Module, masks: dict[str, Tensor]) -> float:
        if options.ft_in_oracle_pruning:
            fine_tune(candidate, data, Masks(candidate, masks), Unrecorded(options), Tally())
        return evaluate(candidate, data.train_once())["loss"]

    return judge


def prune(model: nn.Module, data: Data, pruner: Pruner, planned: Planned, run_dir: RunDir, tally: Tally) -> None:
    """The prune phase, with the logs of it that were asked for."""
    options = run_dir.options
    steps = planned.schedule.cut_after_step + 1 if planned.schedule else 0
    figure = History(pruner, max(steps // LOOKS, 1)) if options.wg != "weight" else None
    magnitudes = History(pruner, options.plot_interval) if options.save_mag_reg_log else None
    order = (
        OrderLog(pruner, options.plot_interval, run_dir.log_file("order_log.csv")) if options.save_order_log else None
    )
    observers = [watcher.observe for watcher in (figure, magnitudes, order) if watcher]
    prune_phase(model, data, pruner, run_dir, steps, tally, observers)
    if figure and figure.scores:
        norms_figure(figure, pruner.kept(), pruner.milestones, run_dir.log_file("filter_norms.png"))
    if magnitudes:
        magnitudes.write(run_dir.log_file(""))
    if order:
        order.look(sum(tally.iterations.values()))


def make_cut(
    model: nn.Module, data: Data, pruner: Pruner, planned: Planned, image: Tensor, run_dir: RunDir, around: Around
) -> None:
    """Cut `model` in place and measure what that costs."""
    options, plan, kept = run_dir.options, planned.plan, pruner.kept()
    if plan.pruned:
        # Without a prune phase these are the base's weights, which have been tested.
        unchanged = around.base and not pruner.has_prune_phase
        around.before_cut = around.base if unchanged else evaluate(model, data.test_batches())
        around.acc1_before_cut_bn = reestimated_acc1(model, data)
        around.gap, around.l1_comparison = pruner.gaps(), pruner.comparison()
    masks = cut(model, kept, plan.kind, image)
    run_dir.cut_made({} if masks else kept, masks)
    if plan.pruned:
        around.after_cut = evaluate(model, data.test_batches())
        around.acc1_after_cut_bn = reestimated_acc1(model, data)
        lost = around.acc1_before_cut_bn - around.acc1_after_cut_bn
        run_dir.say(
            f"cut: test acc1 {around.before_cut['acc1']:.2f} -> {around.after_cut['acc1']:.2f} raw, "
            f"{around.acc1_before_cut_bn:.2f} -> {around.acc1_after_cut_bn:.2f} with batch-norm statistics "
            "re-estimated on both sides"
        )
        if lost > 1:
            log.warning("notice: re-estimated, the cut cost %.2f points: what was cut still mattered", lost)
    if options.model_noise_num:
        std, copies = options.model_noise_std, options.model_noise_num
        around.noisy_ensemble_acc1 = noisy_ensemble_acc1(model, data, std, copies, options.seed)
        run_dir.say(f"{copies} copies with noise of {std:g}: training acc1 {around.noisy_ensemble_acc1:.2f}")
    if options.check_jsv_loop:
        around.jacobian_singular_values = jacobian_singular_values(model, data, options.check_jsv_loop)
        values = "  ".join(f"{key} {value:.4g}" for key, value in around.jacobian_singular_values.items())
        run_dir.say(f"singular values of the input-output Jacobian: {values}")


def print_evaluation(options: Options, spec: DataSpec, device: torch.device) -> None:
    """``--evaluate``: accuracy and costs of a file, dense or pruned; writes nothing."""
    if not options.base_model_path:
        raise ValueError("--evaluate needs --base_model_path FILE")
    start = starting_network(options, spec)
    model = start.model.to(device)
    data = build_loaders(options.dataset, options.data_path, options.seed, options.workers, device)
    accuracy = evaluate(model, data.test_batches())
    cost = cost_of(model, spec.channels, spec.size)
    print(evaluation_table(start.source, spec.name, accuracy, cost, start.masks))


if __name__ == "__main__":
    sys.exit(main())
