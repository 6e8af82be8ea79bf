"""`schema.json` of a folder of logged decisions: what its records are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..actions.heads import record_sizes, schema_of
from ..application import ActionHead, Application
from ..experiences.records import RecordLayout

FORMAT = 1
SCHEMA = "schema.json"
FOLDER = "decisions"
"""Of the log, in the instance's own folder, unless `decision_log.folder` names another."""

Parts = tuple[tuple[str, ...], tuple[ActionHead, ...], tuple[str, ...]]


def parts_of(application: Application) -> Parts:
    """What the records of an application hold: features, action heads and gate components."""
    return application.features, application.heads, application.gate_components


def log_layout(features: Sequence[str], heads: Sequence[ActionHead], components: Sequence[str]) -> RecordLayout:
    """The record layout of a log, without what only pending entries need."""
    return RecordLayout(len(features), len(heads), len(components), **record_sizes(heads))


def log_schema(
    application: str, features: Sequence[str], heads: Sequence[ActionHead], components: Sequence[str]
) -> dict[str, Any]:
    """The contents of `schema.json`."""
    return {
        "format": FORMAT,
        "application": application,
        "features": list(features),
        "heads": schema_of(heads),
        "gate_components": list(components),
        "records": log_layout(features, heads, components).schema(),
    }
