"""What a request allows: which choices of the heads, and which candidates there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..values import as_text, described, fits_float32, id_hash
from .heads import ActionHead, candidate_head, gaussian_head


class Choices(NamedTuple):
    """What a request allows. `Engine.decide` takes the two by name, a request of `decide_many` has them behind it.

    `allowed`: the choices to draw among, by index, by label or as bools; with several heads a mapping from their names;
    None: all. `candidates`: of a CandidateHead, {"id": text, "features": C numbers} or (id, features) for each one.
    """

    allowed: Any = None
    candidates: Any = None


class Offer:
    """What one request may be decided for.

    `masks` has for each head which choices are allowed, bool[size] (None: all of all heads, or candidates), `packed`
    is what its record says of that, `inputs` (float32[M * C + M]) what the model is given of candidates, `ids` their
    names.
    """

    __slots__ = ("ids", "inputs", "masks", "packed")

    def __init__(
        self,
        packed: bytes,
        masks: Sequence[NDArray[np.bool_]] | None = None,
        inputs: NDArray[np.float32] | None = None,
        ids: Sequence[str] = (),
    ) -> None:
        self.packed = packed
        self.masks = masks
        self.inputs = inputs
        self.ids = ids

    def labels(self, action: Sequence[float]) -> tuple[str, ...]:
        """The id of the candidate that was chosen; empty without candidates."""
        return (self.ids[int(action[0])],) if self.ids else ()


class OfferReader:
    """Reads what hosts pass as `allowed` and `candidates`."""

    def __init__(self, heads: Sequence[ActionHead]) -> None:
        self._heads = tuple(heads)
        self._candidates = candidate_head(heads)
        self._is_number = gaussian_head(heads) is not None
        self.is_needed = self._candidates is not None
        """True if every request must bring candidates."""

    def read(self, choices: Choices | None) -> Offer | None:
        """What a request may be decided for; None if that is everything.

        Raises ValueError naming head and choice if it does not exist or nothing is left, and the candidate that is
        none.
        """
        allowed, candidates = (None, None) if choices is None else choices
        if self._candidates is not None:
            return self._read_candidates(candidates, allowed)
        if candidates is not None:
            raise ValueError("candidates: the application has no CandidateHead; leave them out")
        return None if allowed is None else self._read_allowed(allowed)

    def _read_allowed(self, allowed: Any) -> Offer:
        if self._is_number:
            raise ValueError(f"allowed: {self._heads[0].name} is a number (GaussianHead) and has no choices")
        masks = []
        if isinstance(allowed, Mapping):
            names = [head.name for head in self._heads]
            for name in allowed:
                if name not in names:
                    raise ValueError(f"allowed: there is no head {name!r}; there are {', '.join(names)}")
            for head in self._heads:
                given = allowed.get(head.name)
                masks.append(np.ones(head.size, np.bool_) if given is None else _mask(head, head.labels, given))
        elif len(self._heads) > 1:
            names = [head.name for head in self._heads]
            raise ValueError(
                f"allowed: {described(allowed)}; with several heads it must be a mapping, from their names "
                f"({', '.join(names)}) to choices"
            )
        else:
            masks.append(_mask(self._heads[0], self._heads[0].labels, allowed))
        return Offer(np.packbits(np.concatenate(masks), bitorder="little").tobytes(), masks)

    def _read_candidates(self, candidates: Any, allowed: Any) -> Offer:
        head = self._candidates
        assert head is not None
        if candidates is None:
            raise ValueError(f"candidates: {head.name} is chosen among those that each request brings; there are none")
        listed = _listed("candidates", candidates)
        if not 0 < len(listed) <= head.most:
            raise ValueError(f"candidates: there are {len(listed)}; {head.name} takes from 1 to {head.most}")
        inputs = np.zeros(head.most * (len(head.features) + 1), np.float32)
        features = inputs[: head.most * len(head.features)].reshape(head.most, -1)
        ids = [_read_candidate(place, item, head.features, features[place]) for place, item in enumerate(listed)]
        present = np.zeros(head.most, np.bool_)
        if isinstance(allowed, Mapping):
            allowed = allowed.get(head.name)
        if allowed is None:
            present[: len(ids)] = True
        else:
            present[: len(ids)] = _mask(head, ids, allowed, len(ids))
        inputs[features.size :] = present
        hashes = np.zeros(head.most, "<u8")
        hashes[: len(ids)] = [id_hash(name) for name in ids]
        packed = (features.tobytes(), hashes.tobytes(), np.packbits(present, bitorder="little").tobytes())
        return Offer(b"".join(packed), None, inputs, ids)


def named(candidates: Any, hashed: int) -> tuple[str, ...]:
    """The id among those of a request's candidates whose `id_hash` this is; empty if none is."""
    try:
        ids = [item["id"] if isinstance(item, Mapping) else item[0] for item in candidates]
    except Exception:  # other requests are decided at the same time, and this one has its decision
        return ()
    return next(((name,) for name in ids if isinstance(name, str) and id_hash(name) == hashed), ())


def _read_candidate(place: int, item: Any, names: Sequence[str], target: NDArray[np.float32]) -> str:
    """Write the candidate's features to `target` (float32[C]); its id."""
    try:
        name, features = (item["id"], item["features"]) if isinstance(item, Mapping) else item
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f'candidates: number {place} is {described(item)}; it must be {{"id": text, "features": numbers}} or '
            "(id, features)"
        ) from None
    name = as_text(f"candidates: the id of number {place}", name)
    listed = _listed(f"candidates: the features of {name}", features)
    if len(listed) != len(names):
        raise ValueError(
            f"candidates: {name} has {len(listed)} features; there must be {len(names)}: {', '.join(names)}"
        )
    for at, (feature, value) in enumerate(zip(names, listed, strict=True)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not fits_float32(number):
            raise ValueError(f"candidates: {feature} of {name} is {described(value)}; it must be a finite number")
        target[at] = number
    return name


def _listed(what: str, given: Any) -> list[Any]:
    try:
        if isinstance(given, (str, bytes, Mapping)):
            raise TypeError
        return list(given)
    except TypeError:
        raise ValueError(f"{what}: {described(given)}; it must be a sequence") from None


def _mask(head: ActionHead, labels: Sequence[str], given: Any, count: int = -1) -> NDArray[np.bool_]:
    """Which of the head's choices are given, by index, by label or as bools: bool[size] (or bool[count])."""
    size = head.size if count < 0 else count
    listed = _listed(f"allowed: {head.name}", given)
    if listed and all(isinstance(item, (bool, np.bool_)) for item in listed):
        if len(listed) != size:
            raise ValueError(f"allowed: {head.name} has {size} choices, and {len(listed)} bools are given")
        mask = np.array(listed, np.bool_)
    else:
        mask = np.zeros(size, np.bool_)
        for item in listed:
            mask[_place(head, labels, size, item)] = True
    if not mask.any():
        raise ValueError(f"allowed: no choice of {head.name} is allowed; leave at least one of its {size}")
    return mask


def _place(head: ActionHead, labels: Sequence[str], size: int, item: Any) -> int:
    if isinstance(item, str):
        if item in labels:
            return labels.index(item)
    elif not isinstance(item, (bool, np.bool_)):
        try:
            place = index(item)
        except TypeError:
            place = -1
        if 0 <= place < size:
            return place
    known = f"0 to {size - 1}" + (f" or {', '.join(labels[:8])}" if labels else "")
    raise ValueError(f"allowed: {head.name} has no choice {described(item)}; it has {known}")
