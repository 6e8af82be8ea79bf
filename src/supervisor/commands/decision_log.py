"""`ctl decision-log`: the decisions on disk, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...shared.errors import SupervisorError, need_extra

EXAMPLE = "ctl decision-log export --instance shop --to decisions.parquet"
EXITS = "0 it was written; 1 there is no log, or it cannot be read or written"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    parser.add_argument("action", choices=("export",), help="export: all of it into one file")
    add_instance(parser)
    parser.add_argument("--log", metavar="DIR", help="the log's folder (default: that of the instance)")
    parser.add_argument("--config", metavar="FILE", help="the configuration, as for `ctl up`: where the log is")
    parser.add_argument("--to", required=True, metavar="FILE", help="FILE.parquet (needs pyarrow) or FILE.npy")


def run(options: argparse.Namespace) -> int:
    """Export it."""
    import numpy as np

    from ...evaluation.log.folder import read_log

    target = Path(options.to)
    if target.suffix not in (".npy", ".parquet"):
        raise SupervisorError(f"--to {target}: its name must end in .parquet or .npy")
    if target.suffix == ".parquet":
        need_extra("parquet", "an export to Parquet", ("pyarrow",))
    schema, records = read_log(_folder(options))
    hidden = target.with_name(f".{target.name}")
    if target.suffix == ".npy":
        with open(hidden, "wb") as file:
            np.save(file, records, allow_pickle=False)
    else:
        _write_parquet(hidden, records, [head.name for head in schema.heads])
    hidden.replace(target)
    print(f"{target}: {len(records):,} decisions")
    return 0


def _folder(options: argparse.Namespace) -> Path:
    from ...shared.configuration.config import load
    from ...shared.decision_log.schema import FOLDER
    from .up import config_path

    if options.log is not None:
        return Path(str(options.log))
    config = load(config_path(options.config))
    if config.decision_log.folder:
        return Path(config.decision_log.folder)
    return Path(config.data_dir) / str(options.instance) / FOLDER


def _write_parquet(path: Path, records: Any, heads: list[str]) -> None:
    """One column for each field; arrays become lists of a fixed size, the choices of each head its own column too."""
    import pyarrow
    from pyarrow import parquet

    from ...shared.experiences.records import SEND, decode_key

    columns: dict[str, Any] = {}
    for name in records.dtype.names:
        values = records[name]
        if name == "key":
            columns[name] = pyarrow.array([decode_key(bytes(key)) for key in values])
        elif name == "decision":
            columns[name] = pyarrow.array(["SEND" if value == SEND else "WAIT" for value in values])
        elif values.ndim == 1:
            columns[name] = pyarrow.array(values.copy())
        elif values.ndim == 2 and values.shape[1]:
            flat = pyarrow.array(values.reshape(-1).copy())
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    for place, head in enumerate(heads):
        columns[f"action.{head}"] = pyarrow.array(records["action"][:, place].copy())
    parquet.write_table(pyarrow.table(columns), path)
