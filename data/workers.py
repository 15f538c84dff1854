"""DataLoader workers: start, end and errors."""

import atexit
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from typing import Any

KILLED = "a data worker was killed (out of memory or of shared memory?)"
OUT_OF_SHARED_MEMORY = "a data worker has run out of shared memory; in Docker, raise --shm-size"
WAIT_FOR_SIGNAL = 10  # seconds
Worker = multiprocessing.process.BaseProcess
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

# torch's words for a process that ended by itself, and for shared memory that cannot be had.
_LOST = re.compile(
    r"DataLoader worker \(pid\S* ?[\d, ]+\) (?:is killed by signal:|exited unexpectedly(?: with)?)([^.\n]*)"
)
_SHARED_MEMORY = re.compile(
    r"unable to (open|write to|resize|mmap|allocate) .*(shared memory|/torch_)|killed by signal: Bus error|torch_shm"
)
_FROM_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\nOriginal Traceback")


class LostWorkerError(RuntimeError):
    """A data worker was killed, or cannot be started."""


def lost_worker(error: BaseException) -> str | None:
    """Explain an error caused by a lost data worker, wherever it was raised.

    torch raises it from its handler of SIGCHLD, so at any point of the main thread.

    Returns:
        One line with the likely cause; None for all other errors.
    """
    chain = _chain_of(error)
    text = "\n".join(str(one) for one in chain)
    explained = [str(one) for one in chain if isinstance(one, LostWorkerError)]
    if explained:
        return explained[0]
    if _SHARED_MEMORY.search(text):
        return OUT_OF_SHARED_MEMORY
    lost = [found.strip() for found in _LOST.findall(text)]
    if not lost:
        return None
    how = next((found for found in lost if found not in ("", "Killed")), None)
    return f"a data worker has ended: {how}" if how else KILLED


def _chain_of(error: BaseException | None) -> list[BaseException]:
    """`error`, its cause, the cause of that, …"""
    chain = []
    while error and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


@contextmanager
def starting_workers(started: list[Worker] | None = None) -> Iterator[None]:
    """Start worker processes that ignore signals to the process group.

    The program finishes its step after such a signal and needs its workers for it. They inherit the blocked mask, so
    no signal reaches them; they end with the program, or when it closes the loader.

    Args:
        started: gains the workers.

    Raises:
        LostWorkerError: they cannot be started.
    """
    atexit.unregister(_kill_workers)
    atexit.register(_kill_workers)  # before multiprocessing's own, which asks by SIGTERM and then waits
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    received: list[int] = []
    handlers = _record_into(received)
    try:
        if multiprocessing.get_start_method() != "fork":
            resource_tracker.ensure_running()  # its start unblocks two of the signals
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        others = multiprocessing.active_children()
        yield
        if started is not None:
            started += set(multiprocessing.active_children()) - set(others)
    except OSError as error:
        raise LostWorkerError(f"no data worker can be started ({error.strerror})") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for number in received:
        signal.raise_signal(number)


def _record_into(received: list[int]) -> dict[int, Any]:
    """Record signals until the returned handlers are restored.

    Blocking is not enough: the system may hand a signal to another thread, and Python then calls the handler in this
    one, in the middle of a loader's start.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handled = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, lambda number, _: received.append(number)) for number in handled}


def _kill_workers() -> None:
    """Kill the workers of loaders that were not closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise
    for process in multiprocessing.active_children():
        process.kill()


def end_with_program(worker: int) -> None:
    """End this worker when the program is killed: torch's own watch misses that under ``forkserver``."""
    threading.Thread(target=_wait_for_program, daemon=True).start()


def _wait_for_program() -> None:
    program = multiprocessing.parent_process()
    assert program is not None  # a worker has one
    connection.wait([program.sentinel])
    os._exit(1)


@contextmanager
def worker_errors() -> Iterator[list[Worker]]:
    """Raise errors of workers as one line. Yields a list for the workers, whose exit codes help to explain.

    Raises:
        LostWorkerError: a worker was killed.
    """
    workers: list[Worker] = []
    try:
        yield workers
    except Exception as error:
        lost = _lost_at(error)
        if lost == KILLED:
            lost = _by_exit_code(workers)
        if lost:
            raise LostWorkerError(lost) from error
        raised = _as_raised(error)
        if raised is error:
            raise
        raise raised from None


def _lost_at(error: Exception) -> str | None:
    """``lost_worker``, for an error of the loader itself: a connection breaks before the signal arrives.

    A moment before, on a busy machine seconds. The signal must not arrive later: torch's handler would raise while the
    loader is deleted, which leaves a lock that the exit of the program waits for.
    """
    if not isinstance(error, ConnectionError | EOFError) or _FROM_WORKER.match(str(error)):
        return lost_worker(error)
    try:
        time.sleep(WAIT_FOR_SIGNAL)
    except RuntimeError as signalled:
        return lost_worker(signalled) or KILLED
    return KILLED


def _by_exit_code(workers: list[Worker]) -> str:
    """Explain the loss of one of `workers` whose signal torch came too late to see."""
    codes = [worker.exitcode or 0 for worker in workers]
    how = next((-code for code in codes if code < 0 and -code not in (signal.SIGKILL, signal.SIGTERM)), None)
    if how is None:
        return KILLED
    return OUT_OF_SHARED_MEMORY if how == signal.SIGBUS else f"a data worker has ended: {signal.strsignal(how)}"


def _as_raised(error: Exception) -> Exception:
    """Return `error` as the worker raised it; it arrives with the traceback in its text."""
    text = str(error)
    caught = _FROM_WORKER.match(text)
    if not caught:
        return error
    name = caught[1]
    message = re.split(rf"^(?:[\w.]+\.)?{name}(?:: |$)", text, flags=re.M)[-1]
    message = " ".join(message.split()) or f"{name} in a data worker"
    if type(error).__name__ != name:  # torch could not make one of that type
        return RuntimeError(f"{name}: {message}")
    return type(error)(message)
