"""`schema.json` of a folder of logged decisions: what its records are."""

from __future__ import annotations

from typing import Any

from ..actions.heads import record_sizes, schema_of
from ..application import Application
from ..experiences.records import RecordLayout

FORMAT = 1
SCHEMA = "schema.json"
FOLDER = "decisions"
"""Of the log, in the instance's own folder, unless `decision_log.folder` names another."""


def log_schema(application: Application) -> dict[str, Any]:
    """The contents of `schema.json` for an application's decisions."""
    heads = application.heads
    records = RecordLayout(
        len(application.features), len(heads), len(application.gate_components), **record_sizes(heads)
    )
    return {
        "format": FORMAT,
        "application": application.name,
        "features": list(application.features),
        "heads": schema_of(heads),
        "gate_components": list(application.gate_components),
        "records": records.schema(),
    }
