"""The picture of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from _logged_worlds import TableWorld, greedy
from tandem.evaluation.breakdown import breakdown
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.evaluation import evaluate
from tandem.evaluation.plot import draw
from tandem.shared.application import ActionHead


@pytest.mark.parametrize("by", [None, "action"])
def test_a_picture_shows_the_estimates(tmp_path: Path, by: str | None) -> None:
    """An SVG file holds the sentence, each estimator's name and each part's."""
    world = TableWorld.drawn(1)
    found = evaluate(world.log(2000, 1), greedy(world, 0.6, "version 7"), limits=(0.0, 1.0))
    parts = [] if by is None else breakdown(found, by, (), (ActionHead("kind", 5),))
    draw(found, tmp_path / "p.svg", parts)
    text = (tmp_path / "p.svg").read_text(encoding="utf-8")
    for label in ("version 7, doubly robust", "what was logged", "version 7 is", *(part.label for part in parts)):
        assert label in text, label


def test_a_name_that_ends_in_no_format_is_refused(tmp_path: Path) -> None:
    """The file and the formats are named."""
    world = TableWorld.drawn(1)
    found = evaluate(world.log(500, 1), greedy(world, 0.6), limits=(0.0, 1.0))
    with pytest.raises(EvaluationError, match=r"p\.nonsense: cannot be drawn.*png"):
        draw(found, tmp_path / "p.nonsense")
