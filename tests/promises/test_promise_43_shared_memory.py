"""Nothing that lies in shared memory can stop decisions, rewards, an attach or a restart."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from proof import figure, size
from tandem.inference_proc.engine import Engine
from tandem.shared.experiences.forwarded_rewards import CELL, Cells, cell_rows
from tandem.shared.experiences.records import key_hash
from tandem.shared.instance import Instance
from tandem.shared.memory import layout
from tandem.shared.memory.arrays import SharedArray
from tandem.shared.memory.rows import checksum
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.telemetry.stats import buffer_stats

OBSERVATION = [0.1, 0.2, 0.3, 0.4]
NONSENSE = (0, 1, 2**31, 2**32 - 1, 2**48 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
WEIRD = (math.nan, math.inf, -math.inf, 1e39, 3.4e38, -1.0, 0.0)
KINDS = ("bytes", "words", "counters", "entries", "messages", "rows")


class Vandal:
    """Another process of the same user: writes what it likes into the lanes' segments and counters."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.control, records = instance.control, instance.records
        self.lanes = self.control.get("lanes")
        waiting = self.control.get("pending_capacity")
        parts = [("ring", records.record, self.control.get("capacity")), ("pending", records.pending, waiting)]
        parts.append(("mail", CELL, cell_rows(self.lanes, waiting)))
        self.arrays = {
            (part, lane): SharedArray(instance.name, f"{part}{lane}", dtype, rows)
            for part, dtype, rows in parts
            for lane in range(self.lanes)
        }

    def number(self) -> int:
        choice = int(self.rng.integers(len(NONSENSE) + 2))
        return NONSENSE[choice] if choice < len(NONSENSE) else int(self.rng.integers(2**64, dtype=np.uint64))

    def strike(self, kind: str) -> None:
        getattr(self, kind)()

    def bytes(self) -> None:
        """Random bytes over a stretch of a segment."""
        for array in self.arrays.values():
            memory = array.words.view(np.uint8).reshape(-1)
            start = int(self.rng.integers(len(memory)))
            stretch = memory[start : start + int(self.rng.integers(1, 5000))]
            stretch[:] = self.rng.integers(256, size=len(stretch), dtype=np.uint8)

    def words(self) -> None:
        """Numbers at the edge of their range, in rows that are in use."""
        for array in self.arrays.values():
            rows = np.flatnonzero(array.words[:, 0])
            for row in self.rng.permutation(rows)[:20]:
                array.words[row, self.rng.integers(array.words.shape[1])] = self.number()

    def counters(self) -> None:
        """Nonsense in the lanes' counters."""
        for lane in range(self.lanes):
            for name, (at, _) in layout.LANE_FIELDS.items():
                if self.rng.random() < 0.3:
                    word = (layout.LANES_AT + lane * layout.LANE_BYTES + at) >> 3
                    self.control.words[word] = self.number()
                    del name

    def row(self, array: SharedArray, place: int, ticket: int, number: int) -> None:
        """A row with random contents whose checksum is right."""
        row = array.array[place : place + 1].copy()
        row.view(np.uint8)[16:] = self.rng.integers(256, size=array.row_bytes - 16, dtype=np.uint8)
        row["ticket"], row["sequence"] = ticket, number
        for field in ("expected_reward", "actual_reward", "timestamp", "probability"):
            with np.errstate(over="ignore"):
                row[field] = WEIRD[int(self.rng.integers(len(WEIRD)))]
        if "owner" in array.array.dtype.names:
            key = f"k{self.rng.integers(4)}".encode()
            row["owner"], row["owner_hash"] = key, key_hash(key)
            row["decided_ns"] = int(self.rng.integers(-(2**63), 2**63))
        row["checksum"] = checksum(row.tobytes()[16:], number)
        array.array[place] = row[0]

    def entries(self) -> None:
        """Pending entries that look whole."""
        for (part, lane), array in self.arrays.items():
            for place in range(len(array.array)) if part == "pending" else ():
                ticket = int(self.rng.choice([lane, 3, 77, 0xFFFF])) << 48 | int(
                    self.rng.choice([0, 1, 5, 2**47, 2**48 - 1])
                )
                self.row(array, place, ticket, ticket)

    def rows(self) -> None:
        """Records that look whole."""
        for (part, lane), array in self.arrays.items():
            for place in range(0, len(array.array), 3) if part == "ring" else ():
                number = place + 1 + len(array.array) * int(self.rng.choice([0, 1, 2**20, 2**55]))
                self.row(array, place, lane << 48 | int(self.rng.integers(2**48)), number)

    def messages(self) -> None:
        """Forwarded rewards for everything that waits, with right checksums and any reward."""
        waiting = self.control.get("pending_capacity")
        for (part, _), array in self.arrays.items():
            for place in range(self.lanes * waiting) if part == "mail" else ():
                ticket = int(self.arrays["pending", place // waiting].words[place % waiting, 0])
                with np.errstate(over="ignore"):
                    message = np.array([(ticket, WEIRD[int(self.rng.integers(len(WEIRD)))], 0)], CELL)
                message["checksum"] = checksum(message.tobytes()[:12], 0)
                array.array[place] = message[0]
        for lane in range(self.lanes):
            self.control.set(f"lane.{lane}.mail_head", self.number())


def balanced(engine: Engine) -> bool:
    stats = buffer_stats(engine.control)
    ends = ("completed", "expired", "superseded", "dropped", "rejected", "lost")
    return bool(stats["decided"] == stats["pending_count"] + sum(stats[name] for name in ends))


def use(first: Engine, second: Engine) -> None:
    """What servers do all day; the keys are the vandal's too."""
    for number in range(6):
        first.decide(f"k{number}", OBSERVATION)
        second.decide(f"k{number % 2}", OBSERVATION)
        second.reward(f"k{number}", 0.5)
        first.reward(f"k{number}", 0.5)
    for engine in (first, second):
        engine.beat()
        engine.forget("k3")


def check_new(first: Engine, second: Engine) -> None:
    """A new decision under a new key is completed once, wherever its reward arrives, and can be read."""
    for engine, key in ((first, "fresh"), (second, "fresher")):
        before = [other.lane.get("reward_count") for other in (first, second)]
        engine.decide(key, OBSERVATION)
        assert second.reward(key, 0.25) is True
        assert second.reward(key, 0.25) is False
        for other in (first, second):
            other.beat()
        assert sum(other.lane.get("reward_count") for other in (first, second)) == sum(before) + 1
        head = engine.lane.get("head")
        row = engine.lane.ring.record(head)
        assert (float(row["actual_reward"]), int(row["sequence"])) == (0.25, head)


def strikes(instance: Instance, rounds: int) -> int:
    """Vandalise a living and a dead instance in turn; how many rounds, all survived."""
    for seed in range(rounds):
        vandal = Vandal(instance, seed)
        kind = KINDS[seed % len(KINDS)]
        first, second = Engine.attach(instance.name, timeout=0), Engine.attach(instance.name, timeout=0)
        use(first, second)
        vandal.strike(kind)
        use(first, second)
        first.close()
        second.close()
        vandal.strike(kind)
        first, second = Engine.attach(instance.name, timeout=0), Engine.attach(instance.name, timeout=0)
        assert balanced(first), (seed, kind)
        check_new(first, second)
        use(first, second)
        assert balanced(first), (seed, kind)
        assert ExperienceReplayBuffer(instance).get_stats()["size"] >= 0
        first.close()
        second.close()
    return rounds


@pytest.fixture
def small(toy_instance: Callable[..., Any]) -> Instance:
    made: Instance = toy_instance(inference={"lanes": 2, "pending_capacity": 16}, trainer={"buffer_capacity": 64})
    return made


@pytest.mark.timeout(3600)
def test_promise_43_shared_memory(small: Instance, caplog: pytest.LogCaptureFixture) -> None:
    """Random bytes, edge numbers, and entries, rows and messages that look right: nobody raises, hangs or miscounts."""
    caplog.set_level(logging.CRITICAL)
    began = time.monotonic()
    rounds = strikes(small, size(24, 2000))
    assert time.monotonic() - began < 10 * rounds
    figure(43, f"0 of {2 * rounds} strikes at lanes and segments raised or unbalanced a count")


def test_a_letter_that_is_believed_is_found_out(
    small: Instance, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same strikes stop an engine that takes every message for what it says."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(Cells, "open", lambda self, sender, cell, ticket: 1e39)
    with pytest.raises((AssertionError, OverflowError)):
        strikes(small, 2 * len(KINDS))
