"""TensorBoard event files from the step history, written by a thread of the trainer process.

The thread reads shared memory as any reader does, so a slow or full disk never holds up a training step. A step that
the history lost before the thread came to it is missing in the files, and nowhere else. After a restart the files go on
with the next version.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..shared.errors import TandemError
from ..shared.instance import Instance
from ..shared.memory import layout
from ..shared.memory.control import Control
from ..shared.rate_limit import RateLimit

log = logging.getLogger(__name__)

FOLDER = "tensorboard"
TAGS = {
    "loss": "training/loss",
    "reward": "training/reward",
    "actual_reward": "training/actual_reward",
    "expected_reward": "training/expected_reward",
    "batch": "training/batch_size",
    "step_ms": "training/step_ms",
    "gradient_norm": "training/gradient_norm",
    "entropy": "policy/entropy",
    "lag_mean": "policy/lag_mean",
    "lag_max": "policy/lag_max",
    "clipped_share": "policy/clipped_share",
    "send_share": "policy/send_share",
    "event": "model/event",
}
"""Column of the step history -> name in TensorBoard. `model/event` marks a rollback by 1 and a reset by 2."""

_INTERVAL = 2.0


class EventFiles:
    """Writes each new row of the history to an event file in `folder`, every two seconds, until `close`.

    Raises TandemError if tensorboardX is not installed.
    """

    def __init__(self, control: Control, folder: Path) -> None:
        try:
            self._open: Any = importlib.import_module("tensorboardX.event_file_writer").EventsWriter
            self._event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
            self._summary: Any = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
        except ImportError as error:
            raise TandemError(
                "metrics.tensorboard: true needs the package tensorboardX: pip install 'tandem-learning[tensorboard]'"
            ) from error
        self._control = control
        self._folder = folder
        self._file: Any = None
        self._written = int(control.get("history.head"))
        self._warn = RateLimit(60.0)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tandem-tensorboard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left and end. Idempotent."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_INTERVAL):
            self._write_new()
        self._write_new()
        self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
            self._file = None

    def _write_new(self) -> None:
        head = int(self._control.get("history.head"))
        rows = (
            self._control.history(limit=min(head - self._written, layout.HISTORY_ROWS)) if head > self._written else []
        )
        self._written = head
        if not rows:
            return
        try:
            if self._file is not None and not self._folder.is_dir():
                self._drop_file()  # the folder was removed with the file in it
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = self._open(str(self._folder / "events"))
            for row in rows:
                self._file.write_event(self._as_event(row))
            self._file.flush()
        except Exception as error:
            version = int(self._control.get("version"))
            self._warn.warning(log, "version %d: TensorBoard files cannot be written: %s", version, error)
            # The file may end in half an event, behind which nothing can be read: go on in another.
            self._drop_file()

    def _as_event(self, row: dict[str, float]) -> Any:
        value = self._summary.Value
        happened = row["event"] != 0
        values = [
            value(tag=tag, simple_value=row[column])
            for column, tag in TAGS.items()
            if (column == "event") == happened and not math.isnan(row[column])
        ]
        return self._event(wall_time=row["time"], step=int(row["version"]), summary=self._summary(value=values))


@contextlib.contextmanager
def event_files(instance: Instance) -> Iterator[None]:
    """Event files are written inside of this context, if the instance's `metrics.tensorboard` says so."""
    if not instance.config.metrics.tensorboard:
        yield
        return
    folder = instance.data_dir / FOLDER
    files = EventFiles(instance.control, folder)
    log.info("version %d: TensorBoard files go to %s", instance.control.get("version"), folder)
    try:
        yield
    finally:
        files.close()
