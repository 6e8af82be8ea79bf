"""How much shared memory a configuration takes.

`python -m tandem.supervisor.setup.memory_budget [--config FILE]` prints the bytes. A short-lived process of its own,
because the application's model has to be built (torch); `ctl doctor` runs it.
"""

from __future__ import annotations

import argparse
import sys

from ...shared.configuration.config import Config, load
from ...shared.errors import TandemError
from ...shared.memory import layout

_HEADER = 4096


def needed_bytes(config: Config) -> int:
    """Bytes of all segments of an instance with this configuration, rounded up to pages."""
    from ...shared.experiences.forwarded_rewards import CELL, cell_rows
    from ...shared.instance import configured_application, pending_capacity, record_layout, seeded_model
    from ...shared.weights.flat_model import FlatModel

    application = configured_application(config)
    records = record_layout(application)
    weights = FlatModel(seeded_model(application, 0)).layout
    lane = config.trainer.buffer_capacity * records.record.itemsize
    waiting = pending_capacity(config, records)
    lane += waiting * records.pending.itemsize + 3 * _HEADER
    lane += cell_rows(config.inference.lanes, waiting) * CELL.itemsize
    slot = len(weights.header()) + weights.data_bytes
    return layout.CONTROL_BYTES + config.inference.lanes * lane + config.weights.slots * (slot + _HEADER)


def main() -> int:
    """Print the bytes: 0, or 1 with one message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tandem.supervisor.setup.memory_budget")
    parser.add_argument("--config", default=None)
    options = parser.parse_args()
    try:
        print(needed_bytes(load(options.config, must_exist=True)))
    except TandemError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
