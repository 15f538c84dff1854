"""Curves for TensorBoard, written without a thread: a thread that dies of a full disk would block the run."""

import logging
import time
from pathlib import Path

log = logging.getLogger("pruning")
FLUSH_SECONDS = 30  # flushing waits for the disk


class Scalars:
    """An events file in `folder`. Failures to write cause one notice."""

    def __init__(self, folder: Path):
        from tensorboardX.event_file_writer import EventsWriter  # here: plans and wrong commands need not wait for it

        self._writer: EventsWriter | None = None
        self._flushed = time.monotonic()
        try:
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._give_up(error)

    def add(self, phase: str, step: int, values: dict[str, float]) -> None:
        """One point of each curve ``phase/name``."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._writer is None:
            return
        try:
            for name, value in values.items():
                summary = scalar(f"{phase}/{name}", value)
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._flushed = time.monotonic()
                self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        log.warning("notice: no more curves for TensorBoard (%s); the run continues", error.strerror or error)
