"""What hosts pass as `allowed` and `candidates`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tandem import ActionHead, CandidateHead, Choices, GaussianHead
from tandem.shared.actions.offer import OfferReader
from tandem.shared.experiences.records import encode_key, key_hash
from tandem.shared.values import id_hash

SIDE, SIZE = ActionHead("side", 3, ("left", "middle", "right")), ActionHead("size", 10)
ITEM = CandidateHead("item", 3, ("price", "fame"))


@pytest.mark.parametrize(
    "given",
    [
        [0, 2], (2, 0, 0), ["left", "right"], {"right", "left"}, [True, False, True], np.array([True, False, True]),
        np.array([0, 2]), {"side": ["left", 2]},
    ],
)  # fmt: skip
def test_choices_are_named_in_any_way(given: Any) -> None:
    """By index, label or as bools."""
    offer = OfferReader((SIDE,)).read(Choices(given))
    assert offer is not None
    assert offer.masks is not None
    assert offer.masks[0].tolist() == [True, False, True]
    assert offer.packed == bytes([0b101])


def test_several_heads_go_by_name() -> None:
    """What is not named is allowed; the record has the heads' choices one after the other."""
    offer = OfferReader((SIDE, SIZE)).read(Choices({"side": ["middle"]}))
    assert offer is not None
    assert offer.packed == bytes([0b11111010, 0b11111])
    assert OfferReader((SIDE, SIZE)).read(None) is None


@pytest.mark.parametrize(
    ("heads", "choices", "said"),
    [
        ((SIDE,), Choices([]), "no choice of side is allowed"),
        ((SIDE,), Choices([False] * 3), "no choice of side is allowed"),
        ((SIDE,), Choices([3]), "side has no choice 3 is an int; it has 0 to 2 or left, middle, right"),
        ((SIDE,), Choices(["up"]), "side has no choice 'up'"),
        ((SIDE,), Choices([-1]), "side has no choice -1"),
        ((SIDE,), Choices([1.0]), "side has no choice 1.0"),
        ((SIDE,), Choices("left"), "side: 'left' is a str; it must be a sequence"),
        ((SIDE,), Choices([True]), "3 choices, and 1 bools"),
        ((SIDE, SIZE), Choices([1]), r"must be a mapping, from their names \(side, size\)"),
        ((SIDE, SIZE), Choices({"colour": [1]}), "no head 'colour'"),
        ((SIDE,), Choices(None, [("a", (1, 2))]), "no CandidateHead"),
        ((GaussianHead("price", 1, 2),), Choices([1]), "price is a number"),
        ((ITEM,), None, "there are none"),
        ((ITEM,), Choices(None, []), "takes from 1 to 3"),
        ((ITEM,), Choices(None, [("a", (1, 2))] * 4), "there are 4; item takes from 1 to 3"),
        ((ITEM,), Choices(None, [("a", (1,))]), "a has 1 features; there must be 2: price, fame"),
        ((ITEM,), Choices(None, [("a", (1, float("nan")))]), "fame of a is nan"),
        ((ITEM,), Choices(None, [("a", (1, 1e300))]), "fame of a is 1e.300"),
        ((ITEM,), Choices(None, [(7, (1, 2))]), "the id of number 0"),
        ((ITEM,), Choices(None, [{"id": "a"}]), "number 0 is"),
        ((ITEM,), Choices(["b"], [("a", (1, 2))]), "item has no choice 'b'"),
    ],
)
def test_what_cannot_be_used_is_named(heads: tuple[ActionHead, ...], choices: Choices | None, said: str) -> None:
    """Head, choice and candidate, and what would be right."""
    with pytest.raises(ValueError, match=said):
        OfferReader(heads).read(choices)


def test_candidates_are_laid_out_for_model_and_record() -> None:
    """Features, zeros where nobody is, and who is there; in the record also the ids' hashes."""
    listed = [{"id": "a", "features": [1, 2]}, ("b", np.array([3.0, 4.0]))]
    offer = OfferReader((ITEM,)).read(Choices(None, listed))
    assert offer is not None
    assert offer.inputs is not None
    assert offer.inputs.tolist() == [1, 2, 3, 4, 0, 0, 1, 1, 0]
    assert offer.labels((1,)) == ("b",)
    ids = np.frombuffer(offer.packed[24:48], "<u8").tolist()
    assert ids == [key_hash(encode_key(name, 64)) for name in "ab"] + [0] == [id_hash("a"), id_hash("b"), 0]
    assert offer.packed[48:] == bytes([0b011])
    fewer = OfferReader((ITEM,)).read(Choices(["b"], listed))
    assert fewer is not None
    assert fewer.inputs is not None
    assert fewer.inputs[-3:].tolist() == [0, 1, 0]
