"""A folder of logged decisions: `.npy` files of records, and `schema.json`, which says what they are.

The files are the segments of the log: structured arrays with the fields of `shared.experiences.records.RecordLayout`
(`sequence`, `checksum` and padding may be left out), oldest first by name. Names that begin with a point are ignored:
so a segment can be written whole and then be renamed. `schema.json` holds `format`, and, as the control segment's
schema does, `application`, `features`, `heads` (name, size, labels), `gate_components` and `records`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shared.application import ActionHead, Application
from ...shared.decision_log.schema import FORMAT, SCHEMA, log_layout, log_schema, parts_of
from ...shared.decision_log.segments import OPEN, whole_rows
from ...shared.durable import replace_whole
from ...shared.experiences.records import RecordLayout
from ..errors import EvaluationError
from .decisions import NO_OTHER_HEADS

NEEDED = ("timestamp", "actual_reward", "probability", "decision", "action", "observation")
"""Fields without which nothing can be evaluated."""
_DROPPED = ("sequence", "checksum", "padding")


@dataclass(frozen=True)
class LogSchema:
    """What the records of a log are: the application's name, its features, action heads and gate components."""

    application: str
    features: tuple[str, ...]
    heads: tuple[ActionHead, ...]
    gate_components: tuple[str, ...] = ()

    @classmethod
    def of(cls, application: Application) -> LogSchema:
        """That of an application."""
        return cls(application.name, *parts_of(application))

    @property
    def layout(self) -> RecordLayout:
        """The record layout, without what only pending entries need."""
        return log_layout(self.features, self.heads, self.gate_components)

    def to_dict(self) -> dict[str, Any]:
        """The contents of `schema.json`."""
        return log_schema(self.application, self.features, self.heads, self.gate_components)

    @classmethod
    def read(cls, folder: Path) -> LogSchema:
        """That of a folder. Raises EvaluationError if there is none, or one of another format."""
        path = folder / SCHEMA
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["format"] != FORMAT:
                raise EvaluationError(f"{path}: its format is {plain['format']!r}, this program reads {FORMAT}")
            if any(len(head) > 3 for head in plain["heads"]):
                raise EvaluationError(f"{path}: {NO_OTHER_HEADS}")
            heads = tuple(ActionHead(str(name), int(size), tuple(labels)) for name, size, labels in plain["heads"])
            names = tuple(map(str, plain["features"])), tuple(map(str, plain.get("gate_components", ())))
            return cls(str(plain["application"]), names[0], heads, names[1])
        except FileNotFoundError:
            raise EvaluationError(f"{folder}: is no log of decisions: it has no {SCHEMA}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{path}: cannot be used: {error!r}") from error


def read_log(folder: Path) -> tuple[LogSchema, NDArray[Any]]:
    """The schema of a log and all its records, a structured array [n] in the order of the decisions' times.

    Raises EvaluationError naming the file that is damaged, has other fields or shapes than the schema says, or is not
    there.
    """
    schema = LogSchema.read(folder)
    paths = sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))
    segments = [_segment(path, schema) for path in paths]
    # What is being written: as much of it as is whole. One that is complete already may lie there for a moment.
    growing = [path for path in folder.glob(f"*{OPEN}") if not path.with_suffix(".npy").exists()]
    segments += [_kept(whole_rows(path.read_bytes(), schema.layout.record)) for path in sorted(growing)]
    if not segments:
        raise EvaluationError(f"{folder}: holds no segment (*.npy)")
    names = [
        name for name in segments[0].dtype.names or () if all(name in (part.dtype.names or ()) for part in segments)
    ]
    records = np.concatenate([part[names] for part in segments])
    return schema, records[np.argsort(records["timestamp"], kind="stable")]


def _segment(path: Path, schema: LogSchema) -> NDArray[Any]:
    """One segment, without what belongs to a row in shared memory."""
    try:
        rows: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise EvaluationError(f"{path}: is no whole .npy file: {error}") from error
    wanted = schema.layout.record
    if rows.ndim != 1 or rows.dtype.names is None:
        raise EvaluationError(f"{path}: holds an array of {rows.dtype} {list(rows.shape)}, not records")
    for name in NEEDED:
        if name not in rows.dtype.names:
            raise EvaluationError(f"{path}: its records have no field {name!r}")
        if rows.dtype[name] != wanted[name]:
            raise EvaluationError(f"{path}: the field {name!r} is {rows.dtype[name]}, the schema says {wanted[name]}")
    return _kept(rows)


def _kept(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[[name for name in rows.dtype.names or () if name not in _DROPPED]]


def write_segment(folder: Path, schema: LogSchema, records: NDArray[Any], name: str) -> Path:
    """Write records (structured array [n]) as the segment `name` of a log, and the schema if it is not there yet.

    A reader sees it whole or not at all. Raises EvaluationError if the folder's log is of another schema.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SCHEMA
    if not path.exists():
        replace_whole(path, json.dumps(schema.to_dict(), indent=1).encode())
    elif LogSchema.read(folder) != schema:
        raise EvaluationError(f"{path}: is the schema of another log; choose another folder")
    kept = [field for field in records.dtype.names or () if field not in _DROPPED]
    packed = np.empty(len(records), [(field, records.dtype[field]) for field in kept])
    for field in kept:
        packed[field] = records[field]
    hidden = folder / f".{name}.npy.{os.getpid()}"
    with open(hidden, "wb") as file:
        np.save(file, packed, allow_pickle=False)
    os.replace(hidden, folder / f"{name}.npy")
    return folder / f"{name}.npy"
