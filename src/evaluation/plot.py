"""An evaluation as a picture: the estimates with their intervals, and, if it was broken down, the parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..shared.errors import need_extra
from .answer import verdict
from .breakdown import Part
from .errors import EvaluationError
from .estimators import NAMES, Estimate
from .evaluation import LOGGED, Evaluation

_LOGGED, _POLICY = "#6b7280", "#1d4ed8"
_WIDEST_TITLE = 90


def draw(evaluation: Evaluation, path: Path, parts: Sequence[Part] = ()) -> None:
    """Write the picture; its format follows from the name's ending.

    Raises MissingExtra without matplotlib, EvaluationError for an ending that is no format, and OSError.
    """
    need_extra("plot", "a picture", ("matplotlib",))
    from matplotlib.figure import Figure

    rows = [(side.name, estimate) for side in (evaluation.against, evaluation.policy) for estimate in side.estimates]
    heights = [max(len(rows), 2), *([max(len(parts), 2)] if parts else [])]
    figure = Figure(figsize=(8.5, 1.6 + 0.42 * sum(heights)), dpi=120, layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _estimates(axes[0], rows)
    if parts:
        _parts(axes[1], parts)
    figure.suptitle(_broken(verdict(evaluation)), fontsize=9)
    try:
        figure.savefig(path)
    except ValueError as error:
        raise EvaluationError(f"{path}: cannot be drawn: {error}") from error


def _estimates(axis: Any, rows: Sequence[tuple[str, Estimate]]) -> None:
    labels = []
    for place, (name, estimate) in enumerate(rows):
        is_logged = name == LOGGED
        labels.append("what was logged" if is_logged else f"{name}, {NAMES[estimate.estimator]}")
        _mark(axis, place, estimate.value, estimate, _LOGGED if is_logged else _POLICY)
    _finish(axis, labels, "mean reward of a decision, with its 95 % interval")


def _parts(axis: Any, parts: Sequence[Part]) -> None:
    for place, part in enumerate(parts):
        axis.plot([part.logged], [place], "|", color=_LOGGED, markersize=12, label="logged" if place == 0 else None)
        if part.estimate is not None:
            _mark(axis, place, part.estimate.value, part.estimate, _POLICY)
    _finish(axis, [f"{part.label} ({part.rows:,})" for part in parts], "by part; the grey line is what was logged")


def _mark(axis: Any, place: int, value: float, estimate: Estimate, colour: str) -> None:
    if math.isfinite(estimate.low):
        axis.plot([estimate.low, estimate.high], [place, place], "-", color=colour, linewidth=2)
    axis.plot([value], [place], "o", color=colour, markersize=6)


def _finish(axis: Any, labels: Sequence[str], title: str) -> None:
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlabel(title, fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#e5e7eb")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _broken(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, _WIDEST_TITLE))
