"""TensorBoard scalars, written without a thread: a thread that fails on a full disk would block the run."""

import logging
import time
from pathlib import Path

log = logging.getLogger("pruning")
FLUSH_SECONDS = 30  # a flush waits for the disk


class Scalars:
    """Events file in `folder`. A failed write gives one notice."""

    def __init__(self, folder: Path):
        from tensorboardX.event_file_writer import EventsWriter  # imported here: slow, and not needed by --plan

        self._writer: EventsWriter | None = None
        self._flushed = time.monotonic()
        try:
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._disable(error)

    def add(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Write one value of each scalar ``phase/name``."""
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
            self._disable(error)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._disable(error)

    def _disable(self, error: OSError) -> None:
        self._writer = None
        log.warning("notice: no more TensorBoard scalars (%s); the run continues", error.strerror or error)
