"""Where stores may become visible in another order, the checksum tells: nothing torn passes unflagged.

The order of a machine's stores cannot be chosen here. What a reader can find in a row under any order is some mixture
of the old row's words and the new one's: all of them are built, and shown to the reader.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from channel_kit import add, record_layout, wrong_rows
from proof import figure
from tandem.shared.memory.arrays import SharedArray
from tandem.shared.weights.subscriber import Look

MakeChannel = Callable[..., Any]


def accepted_mixtures(channel: MakeChannel, verify: bool) -> tuple[int, int]:
    """Every mixture of two rows' words, in groups; how many there are and how many wrong ones a reader accepts."""
    made = channel(capacity=1, records=record_layout(2, 1, 1))
    lane = made.claim()
    add(lane, 1)
    ring = SharedArray(made.name, "ring0", made.records.record, 1)
    old = ring.words[0].copy()
    add(lane, 2)
    new = ring.words[0].copy()
    reader = made.reader(verify=verify)
    differing = [int(place) for place in np.flatnonzero(old != new) if place]
    trials = wrong = 0
    # The sequence is the new one's, as a reader demands; every other word that differs may still be the old one's.
    for taken in itertools.product((False, True), repeat=len(differing)):
        mixture = new.copy()
        for place, old_word in zip(differing, taken, strict=True):
            if old_word:
                mixture[place] = old[place]
        ring.words[0] = mixture
        rows = reader.recent(1)
        trials += 1
        wrong += len(rows) > 0 and any(taken)
        assert any(taken) or (len(rows) == 1 and not wrong_rows(rows))
    return trials, wrong


def test_promise_08_every_mixture_of_two_rows_is_flagged(channel: MakeChannel) -> None:
    """A verifying reader accepts the whole row and no mixture."""
    trials, wrong = accepted_mixtures(channel, verify=True)
    assert trials >= 64
    assert wrong == 0
    figure(8, f"0 of {trials:,} mixtures of rows unflagged")


def test_without_the_checksum_mixtures_pass(channel: MakeChannel) -> None:
    """The sequence alone accepts them: on such machines it proves nothing."""
    _, wrong = accepted_mixtures(channel, verify=False)
    assert wrong > 0


def accepted_slots(channel: MakeChannel, verify: bool) -> tuple[int, int]:
    """Every mixture of two versions' words in one slot, its sequence already the new one's."""
    made = channel(slots=2, weights_bytes=64)
    publisher, random = made.publisher(), torch.Generator().manual_seed(1)
    drawn = [torch.randint(0, 256, (64,), generator=random, dtype=torch.uint8) for _ in range(4)]
    for version in (1, 2, 3):
        publisher.publish(drawn[version], version)
    slots, room, trials, wrong = made.slots(), made.room(), 0, 0
    for taken in itertools.product((False, True), repeat=8):
        mask = torch.tensor(taken).repeat_interleave(8)
        slots.data[1].copy_(torch.where(mask, drawn[1], drawn[3]))
        got = made.subscriber(verify=verify).refresh(room)
        trials += 1
        wrong += got is Look.TAKEN and any(taken)
        assert any(taken) or (got is Look.TAKEN and torch.equal(room, drawn[3]))
    return trials, wrong


def test_promise_08_every_mixture_of_two_versions_is_flagged(channel: MakeChannel) -> None:
    """A verifying reader takes the whole version and no mixture."""
    trials, wrong = accepted_slots(channel, verify=True)
    assert wrong == 0
    figure(8, f"0 of {trials:,} mixtures of weights unflagged")
    assert trials == 256
