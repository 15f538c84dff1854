#!/usr/bin/env python3
"""Neural pruning by growing regularization: parse, prepare, prune, cut, fine-tune, report."""

import signal
import sys
from collections.abc import Sequence
from contextlib import closing

if __name__ == "__main__":  # until a handler is installed, Ctrl-C exits without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from utils.checkpoint.resume import resolve
from utils.dist.heartbeat import stop_heartbeat
from utils.dist.launch import count_processes, launch
from utils.dist.process_group import destroy_process_group, is_main_process
from utils.dist.signals import StoppedError, StopSignal
from utils.pipeline.cut import cut_and_measure, save_before_finetuning
from utils.pipeline.finetune import finetune_pruned
from utils.pipeline.prepare import Job, prepare
from utils.pipeline.prune import build_pruner, prune
from utils.pipeline.report import write_report
from utils.pipeline.start import start
from utils.reporting.console import close_log, flush_streams, open_log, prepare_streams, show
from utils.reporting.errors import command_errors, print_error, report_error
from utils.reporting.tables import closing_table


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. An error prints one line; its traceback is in ``log/log.txt``, and on stderr with ``--debug``.

    Returns:
        The exit code: 0; 2 for an error before the run starts; 1 for an error during the run; 75 when another process
        is gone; 128 + n when stopped by signal n.
    """
    argv = sys.argv[1:] if argv is None else argv
    prepare_streams()
    open_log(every_line=False, quiet=not is_main_process())
    stop, job = StopSignal(), None
    try:
        with stop.listening():
            with command_errors():
                command = resolve(argv)
            open_log(command.options.screen_print, quiet=not is_main_process())
            if command.resume and command.resume.report:
                show(closing_table(command.resume.report))
                return 0
            processes = count_processes(command.options)
            if processes > 1:
                return launch(__file__, argv, processes)
            job = prepare(command, stop)
            del command  # it references the checkpoint, which the run frees once restored
            if job:
                with closing(job.run):
                    run(job)
    except StoppedError as error:
        print_error(f"{error}{job.run.how_to_resume if job else ' before the run started'}")
        return 128 + error.signal
    except Exception as error:
        report_error(error, job.run.how_to_resume if job else None, debug="--debug" in argv)
        stop_heartbeat(failed=True)
        return 1 if job else 2
    finally:
        stop_heartbeat()
        close_log()
        destroy_process_group()
        flush_streams()
    return 0


def run(job: Job) -> None:
    """Run `job` from the base network or its checkpoint to the report."""
    resumed_in = job.run.resumed_in
    start(job)
    if resumed_in != "finetune" and not job.base.pruned:
        pruner = build_pruner(job)
        if pruner.has_prune_phase:
            prune(job, pruner)
        cut_and_measure(job, pruner)
    if resumed_in != "finetune":
        save_before_finetuning(job)
    finetune_pruned(job)
    write_report(job)


if __name__ == "__main__":
    sys.exit(main())
