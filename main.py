#!/usr/bin/env python3
"""Neural pruning by growing regularization: options → data → model → plan → prune → cut → fine-tune → report."""

import json
import logging
import sys
from collections.abc import Sequence

import torch

from data import Data, DataSpec, build_loaders, describe
from pruner import Masks, build_pruner, cut
from utils.cost import cost_of, example
from utils.device import device_of
from utils.figures import norms_figure
from utils.history import History
from utils.network import Start, family_notice, starting_network
from utils.options import Options, parse
from utils.planning import Planned, plan_notes, plan_run, refuse_untrained
from utils.report import Around, report_of
from utils.run import RunDir, close_log, open_log, say
from utils.schedule import schedule_notices
from utils.tables import closing_table, evaluation_table, plan_table
from utils.training import Diverged, Tally, evaluate, fine_tune, prune_phase, reestimated_acc1

log = logging.getLogger("pruning")
LOOKS = 100  # at the groups' scores during the prune phase, for the figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 2 for a wrong command, 1 for a run that diverged."""
    try:
        job = prepare(sys.argv[1:] if argv is None else argv)
        if job:
            run(*job)
        return 0
    except Wrong as error:
        print(f"main.py: error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"main.py: error: {error}", file=sys.stderr)
        return 1
    finally:
        close_log()


class Wrong(Exception):
    """The command asks for what cannot be; in one line."""


def prepare(argv: Sequence[str]) -> tuple[Options, Data, Start, Planned, torch.device] | None:
    """Everything that can be wrong with a command is found here, before anything is written.

    Returns:
        What ``run`` needs; None where a plan or an evaluation was all that was asked for.
    """
    try:
        options, notices = parse(argv)
        open_log(options.screen_print)
        device = device_of(options.device)
        spec = describe(options.dataset, options.data_path)
        for notice in notices + family_notice(options, spec):
            log.warning("notice: %s", notice)
        if options.evaluate:
            print_evaluation(options, spec, device)
            return None
        planned = plan_run(options, spec)
        if options.plan == "json":
            print(json.dumps(planned.values))
            return None
        if options.plan:
            print(plan_table(planned.values, plan_notes(options, planned.plan)))
            return None
        refuse_untrained(options, planned.plan)
        start = starting_network(options, spec)
        if start.pruned:
            raise ValueError(f"{start.source} is already pruned; give a dense network to --base_model_path")
        data = build_loaders(options.dataset, options.data_path, options.seed, options.workers, device)
        return options, data, start, planned, device
    except ValueError as error:
        raise Wrong(str(error)) from error


def run(options: Options, data: Data, start: Start, planned: Planned, device: torch.device) -> None:
    """One run, from the starting network to the report."""
    model, plan = start.model.to(device), planned.plan
    run_dir, tally, around = RunDir(options, data.spec, model), Tally(), Around()
    log.info("options %s", options)
    say(plan_table(planned.values, []))
    removes = bool(plan.pruned)

    if start.source:
        with tally.timed("base"):
            around.acc1_base = evaluate(model, data.test_batches())["acc1"]
        say(f"base: test acc1 {around.acc1_base:.2f} ({start.source})")

    pruner = build_pruner(options, model, plan)
    history = None
    if planned.schedule:
        steps = planned.schedule.cut_after_step + 1
        history = History(pruner, every=max(steps // LOOKS, 1))
        prune_phase(model, data, pruner, run_dir, steps, tally, history.observe)

    with tally.timed("cut"):
        kept = pruner.kept()
        if removes:
            around.acc1_before_cut = evaluate(model, data.test_batches())["acc1"]
            around.acc1_before_cut_bn = reestimated_acc1(model, data)
            around.gap = pruner.gaps()
        masks = cut(model, kept, plan.kind, example(model, data.spec.channels, data.spec.size))
        run_dir.cut_made({} if masks else kept, masks)
        if removes:
            around.acc1_after_cut = evaluate(model, data.test_batches())["acc1"]
            around.acc1_after_cut_bn = reestimated_acc1(model, data)
            say_cut(around)
    if history and history.scores:
        norms_figure(history, kept, planned.schedule, run_dir.log_file("filter_norms.png"))
    names = ["checkpoint_just_finished_prune"] + (["checkpoint", "checkpoint_best"] if not options.epochs else [])
    run_dir.save(*names, phase="finetune", step=0, model=model)
    run_dir.save_pruned(model)

    for notice in schedule_notices(options):
        log.warning("notice: %s", notice)
    tuned = fine_tune(model, data, Masks(model, masks), run_dir, tally)
    report = report_of(options, data.spec, planned, around, tuned, tally, start.source, device, str(run_dir.path))
    run_dir.write_report(report)
    say(closing_table(report))


def say_cut(around: Around) -> None:
    """What the cut has cost, and a word where it was dear."""
    raw, fresh = (around.acc1_before_cut, around.acc1_after_cut), (around.acc1_before_cut_bn, around.acc1_after_cut_bn)
    say(
        f"cut: test acc1 {raw[0]:.2f} -> {raw[1]:.2f} raw, {fresh[0]:.2f} -> {fresh[1]:.2f} with batch-norm "
        "statistics re-estimated on both sides"
    )
    if fresh[0] - fresh[1] > 1:
        log.warning(
            "notice: even with statistics re-estimated the cut cost %.2f points: what was cut still mattered",
            fresh[0] - fresh[1],
        )


def print_evaluation(options: Options, spec: DataSpec, device: torch.device) -> None:
    """``--evaluate``: accuracy and costs of a file, dense or pruned; writes nothing."""
    if not options.base_model_path:
        raise ValueError("--evaluate needs --base_model_path FILE")
    start = starting_network(options, spec)
    model = start.model.to(device)
    data = build_loaders(options.dataset, options.data_path, options.seed, options.workers, device)
    accuracy = evaluate(model, data.test_batches())
    print(evaluation_table(start.source, spec.name, accuracy, cost_of(model, spec.channels, spec.size)))


if __name__ == "__main__":
    sys.exit(main())
