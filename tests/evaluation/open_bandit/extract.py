"""Make `extract.npz` from the wheel of obp 0.4.1, whose CSV files are read without importing or running it.

`pip download obp==0.4.1 --no-deps && python tests/evaluation/open_bandit/extract.py obp-0.4.1-py3-none-any.whl`
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {"item": "item_id", "position": "position", "click": "click", "propensity": "propensity_score"}
"""Column of the extract -> column of the CSV file."""


def columns(wheel: zipfile.ZipFile, campaign: str) -> dict[str, Any]:
    """What is used of the log of Bernoulli Thompson sampling of one campaign, in the order of the file."""
    text = wheel.read(f"obp/dataset/obd/bts/{campaign}/{campaign}.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    found = {}
    for name, column in COLUMNS.items():
        values = np.array([float(row[column]) for row in rows])
        found[f"{campaign}_{name}"] = values if name == "propensity" else values.astype(np.uint8)
    found[f"{campaign}_position"] -= found[f"{campaign}_position"].min()
    return found


def main() -> None:
    """Write the extract beside this script."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        arrays = {
            name: array for campaign in ("all", "men", "women") for name, array in columns(wheel, campaign).items()
        }
    np.savez_compressed(Path(__file__).with_name("extract.npz"), **arrays)


if __name__ == "__main__":
    main()
