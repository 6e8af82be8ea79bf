"""What decisions that still wait have earned so far, and what they earn in the end.

A partial reward (a click, before the purchase) leaves its decision waiting. Each lane keeps the partial rewards that
came in at its own process in its own segment, one cell for every place of every lane's pending table, so that nobody
writes where another does; the decision's owner adds up what all lanes say when it settles the decision. A cell is the
decision's ticket and one word, and a word is stored at once: whoever dies leaves what was acknowledged.
"""

from __future__ import annotations

import struct
import time
from binascii import crc_hqx
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ..configuration.config import InferenceConfig
from ..values import nearest_float32
from .forwarded_rewards import Cells

_FLOAT = struct.Struct("<f")
_CONTENT = struct.Struct("<QIH")
_MOST_GIVEN_UP = 65_536
_UNIT_NS = 100_000_000
"""Partial rewards are put in order by the tenths of a second since the decision, counted from 1: a word that says
something is never 0.
"""
_EXACT_BITS = 12


@dataclass(frozen=True)
class RewardRules:
    """What a decision earns: `default` if no reward came at all (None: nothing, and it is not learned from), else its
    rewards by `aggregation`: their sum, the last or the first one.
    """

    default: float | None = None
    aggregation: str = "sum"

    @classmethod
    def of(cls, settings: InferenceConfig) -> RewardRules:
        """What decisions earn by these settings."""
        default = settings.default_reward
        return cls(None if isinstance(default, str) else default, settings.reward_aggregation)

    def combine(self, earned: float | None, reward: float) -> float:
        """What a decision has earned that had earned `earned` (None: nothing) and is rewarded once more.

        A sum that 32 bits cannot hold becomes the nearest number that they can.
        """
        if earned is None or self.aggregation == "last":
            return reward
        return earned if self.aggregation == "first" else nearest_float32(earned + reward)


class GivenUp:
    """Keys of decisions that were settled because no reward had come in time: the newest of them, in this process."""

    def __init__(self) -> None:
        # The oldest key of a plain dict is found only past the places of all that were deleted before it.
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def add(self, key: bytes) -> None:
        """The decision under the key was given up."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > _MOST_GIVEN_UP:
            self._keys.popitem(last=False)

    def discard(self, key: bytes) -> None:
        """Another decision is made under the key."""
        if self._keys:
            self._keys.pop(key, None)

    def clear(self) -> None:
        """Forget all keys."""
        self._keys.clear()


class Earnings:
    """The partial rewards of all lanes, seen from lane `index`. Not thread-safe: the lane holds its lock around every
    call.
    """

    def __init__(self, cells: Cells, index: int, rules: RewardRules) -> None:
        self.rules = rules
        self.given_up = GivenUp()
        self._cells = cells
        self._index = index

    # Many parameters: where the decision waits, which it is, and what it earned.
    def add(
        self,
        lane: int,
        place: int,
        ticket: int,
        decided_ns: int,
        reward: float,
        writing: Callable[[int], None] | None = None,
    ) -> None:
        """Keep a partial reward of the decision `ticket`, which waits in a place of a lane's table.

        `writing` is told of the word that is about to be stored.
        """
        own, cell = self._cells.by_lane[self._index], self._cells.of_partial(lane, place)
        since = _shortened(max(0, time.monotonic_ns() - decided_ns) // _UNIT_NS + 1)
        found = None
        if own[cell] == ticket:
            found = self._read(self._index, cell, ticket)
        else:
            own[cell + 1] = 0
            own[cell] = ticket
        if found is not None:
            reward = self.rules.combine(found[1], reward)
            if self.rules.aggregation == "first":
                since = found[0]
        word = _word(ticket, since, reward)
        if writing is not None:
            writing(word)
        own[cell + 1] = word

    def of(self, place: int, ticket: int) -> float | None:
        """What the decision `ticket` of this lane, in `place`, has earned so far; None if nothing."""
        cell = self._cells.of_partial(self._index, place)
        lanes = [lane for lane, cells in enumerate(self._cells.by_lane) if cells[cell] == ticket]
        if not lanes:
            return None
        found = []
        for lane in lanes:
            part = self._read(lane, cell, ticket)
            if part is not None:
                found.append((part[0], lane, part[1]))
        earned = None
        for _, _, reward in sorted(found):
            earned = self.rules.combine(earned, reward)
        return earned

    def will_earn(self, place: int, ticket: int) -> bool:
        """True if the decision is learned from although no reward comes any more."""
        return self.rules.default is not None or self.of(place, ticket) is not None

    def with_last(self, place: int, ticket: int, reward: float) -> float:
        """What the decision has earned in the end, now that its last reward came."""
        earned = self.of(place, ticket)
        return reward if earned is None else self.rules.combine(earned, reward)

    def _read(self, lane: int, cell: int, ticket: int) -> tuple[int, float] | None:
        """When a cell's partial reward came, and the reward; None if it makes no sense or is not there."""
        word = self._cells.by_lane[lane][cell + 1]
        bits, since = word & 0xFFFFFFFF, word >> 32 & 0xFFFF
        if word >> 48 != _check(ticket, bits, since):
            if word:
                self._cells.note_damage(lane, cell, word, "a partial reward")
            return None
        reward: float = _FLOAT.unpack(bits.to_bytes(4, "little"))[0]
        return (since, reward) if reward - reward == 0 else None


def _shortened(count: int) -> int:
    """A count in 16 bits, in the same order: itself below 4096, else its upper 12 bits and how many are left out."""
    left_out = max(0, count.bit_length() - _EXACT_BITS)
    return min((left_out << _EXACT_BITS - 1) + (count >> left_out), 0xFFFF)


def _word(ticket: int, since: int, reward: float) -> int:
    bits = int.from_bytes(_FLOAT.pack(reward), "little")
    return _check(ticket, bits, since) << 48 | since << 32 | bits


def _check(ticket: int, bits: int, since: int) -> int:
    """16 bits (CRC-CCITT): any one flipped bit changes them."""
    return crc_hqx(_CONTENT.pack(ticket, bits, since), 0xFFFF)
