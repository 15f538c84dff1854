"""Start one process per visible GPU through torchrun's API."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch

from utils.config.options import Options
from utils.dist.process_group import under_torchrun
from utils.dist.signals import SIGNALS


def count_processes(options: Options) -> int:
    """Return the number of processes to launch: one per visible GPU; 1 where none are launched.

    Raises:
        ValueError: the flags require torchrun; the message has the command.
    """
    if under_torchrun():
        if options.gpu is not None:
            raise ValueError(f"--gpu {options.gpu} does not apply under torchrun, where each process uses its own GPU: remove it")
        return 1
    if options.world_size > 1:
        address, _, port = options.dist_url.removeprefix("tcp://").rpartition(":")
        endpoint = f"{address}:{port}" if address and port.isdigit() else "FIRST_MACHINE:29500"
        raise ValueError(
            f"--world-size {options.world_size}: use torchrun for several machines; run on each: torchrun "
            f"--nnodes={options.world_size} --nproc_per_node=gpu --rdzv_backend=c10d --rdzv_endpoint={endpoint} main.py …"
        )
    if options.gpu is not None or options.device == "cpu" or options.plan or options.evaluate:
        return 1
    return max(torch.cuda.device_count(), 1)


def launch(program: str, argv: Sequence[str], n: int) -> int:
    """Run `program` with `argv` in `n` processes, as torchrun does. Returns the exit code of the first failure, or 0."""
    # Imported here: it takes a second, and most commands do not launch processes.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // n, 1)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes print their own errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle=",".join(signal.Signals(number).name for number in SIGNALS),
    )
    try:
        elastic_launch(config, sys.executable)(program, *argv)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0
