"""What can be chosen, and what an application may be made of."""

from __future__ import annotations

import pytest
import tandem
from tandem.shared.actions.heads import input_width, record_sizes, schema_of
from tandem.shared.errors import ApplicationError


def test_heads_are_imported_from_the_front() -> None:
    """`from tandem import ActionHead, CandidateHead, GaussianHead, Choices`."""
    assert issubclass(tandem.CandidateHead, tandem.ActionHead)
    assert issubclass(tandem.GaussianHead, tandem.ActionHead)
    assert tandem.Choices([1]).candidates is None


def test_candidates_and_numbers_stand_alone() -> None:
    """Another head beside them is refused, by name."""
    other = tandem.ActionHead("side", 2)
    for head in (tandem.CandidateHead("item", 3, ("a",)), tandem.GaussianHead("price", 1.0, 2.0)):
        tandem.Application("alone", ("x",), (head,))
        with pytest.raises(ApplicationError, match=f"{head.name} must be its only head"):
            tandem.Application("both", ("x",), (head, other))


@pytest.mark.parametrize(("most", "features"), [(0, ("a",)), (True, ("a",)), (2, ()), (2, "ab"), (2, ("a", "a"))])
def test_a_head_of_candidates_that_makes_no_sense_is_refused(most: int, features: tuple[str, ...]) -> None:
    """Naming the head."""
    with pytest.raises(ApplicationError, match="CandidateHead item"):
        tandem.CandidateHead("item", most, features)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (None, 1.0)])
def test_a_range_that_is_none_is_refused(low: float, high: float) -> None:
    """Naming the head."""
    with pytest.raises(ApplicationError, match="GaussianHead price"):
        tandem.GaussianHead("price", low, high)


def test_only_candidates_cost_room() -> None:
    """What a record and a model's input must hold; and the heads as JSON, by which a difference is seen."""
    fixed, item = tandem.ActionHead("side", 9, ("l",) * 9), tandem.CandidateHead("item", 3, ("a", "b"))
    assert record_sizes((fixed, fixed)) == {"choices": 18, "candidates": 0, "candidate_features": 0, "values": 0}
    assert record_sizes((item,)) == {"choices": 3, "candidates": 3, "candidate_features": 2, "values": 0}
    assert record_sizes((tandem.GaussianHead("price", 0, 1),))["values"] == 1
    assert (input_width(5, (fixed,)), input_width(5, (item,))) == (5, 14)
    assert schema_of((item,)) == [["item", 3, [], ["a", "b"]]]
