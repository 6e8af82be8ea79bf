"""What a lane's next holder makes of a call that ended in the middle, and of counters that make no sense."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_kit import add, balance, key_of, value_of, wait_for_reward, wrong_rows
from proof import Planted, at_line, raise_planted
from tandem.shared.memory import layout

MakeChannel = Callable[..., Any]


def held(lane: Any, work: Callable[[], Any]) -> Any:
    with lane.hold():
        return work()


def calls(lane: Any, other: Any, stamp: int) -> dict[str, Callable[[], Any]]:
    """What servers do; each is one call that an exception may end anywhere."""
    return {
        "add": lambda: add(lane, stamp),
        "wait": lambda: wait_for_reward(lane, "new", stamp),
        "supersede": lambda: wait_for_reward(lane, "a", stamp),
        "supersede elsewhere": lambda: wait_for_reward(lane, "theirs", stamp),
        "reward": lambda: held(lane, lambda: lane._writer.reward(key_of("a"), value_of(stamp))),
        "reward elsewhere": lambda: held(lane, lambda: lane._writer.reward(key_of("theirs"), value_of(stamp))),
        "collect": lambda: held(lane, lane._writer.collect),
        "drop": lambda: held(lane, lambda: lane._writer.drop(key_of("a"))),
        "expire": lambda: held(lane, lambda: lane._writer.expire(2**62)),
        "clear": lambda: held(lane, lane._writer.clear),
    }


def prepare(lane: Any, other: Any, stamp: int) -> None:
    for entries, names in ((lane, "ab"), (other, ["theirs"])):
        for name in names:
            wait_for_reward(entries, name, stamp)
    held(other, lambda: other._writer.reward(key_of("b"), value_of(stamp)))


def faults(made: Any, lane: Any, only_rewards: bool = True) -> list[str]:
    """What does not add up once the lane has been held again; `only_rewards`: every record got one."""
    held(lane, lambda: None)
    pending = lane.pending
    places = sorted([*pending._free, *pending._places.values()])
    found = []
    if balance(made.control, lane.index):
        found.append(f"unbalanced by {balance(made.control, lane.index)}")
    if places != list(range(len(pending.tickets))):
        found.append("a free place is lost or there twice")
    if lane.get("pending") != len(pending) or np.count_nonzero(pending.tickets) != len(pending):
        found.append("the table holds something else than is known")
    if lane.get("head") != lane.get("completed"):
        found.append("records are not counted")
    rows = made.reader().recent(10**6)
    mine = rows[rows["ticket"] >> np.uint64(48) == lane.index]
    if only_rewards and lane.get("reward_count") != len(mine):
        found.append("rewards are not counted")
    return found


@pytest.mark.parametrize(
    "what",
    ["add", "wait", "supersede", "supersede elsewhere", "reward", "reward elsewhere", "collect", "drop", "expire"],
)
def test_an_exception_at_any_line_is_settled(channel: MakeChannel, what: str) -> None:
    """No lock stays taken, no place and no count is lost; the next call works, and costs nobody a wait."""
    made = channel(lanes=2, pending=8, capacity=8192, records=None)
    lane, other = made.claim(), made.claim()
    lane.lock_timeout = 0.0
    line, reached = 0, True
    while reached:
        line += 1
        prepare(lane, other, line)
        rewarded = other.get("reward_count")
        try:
            reached = at_line(calls(lane, other, line)[what], line, raise_planted)
        except Planted:
            reached = True
        assert faults(made, lane, only_rewards=what != "add") == [], (what, line)
        held(other, other._writer.collect)
        assert faults(made, other) == [], (what, line)
        assert other.get("reward_count") - rewarded <= 1
        assert wait_and_reward(lane, line)
    assert line > 5
    assert wrong_rows(made.reader().recent(10**6)) == 0
    assert lane.get("lock_timeouts") == 0


def wait_and_reward(lane: Any, line: int) -> bool:
    wait_for_reward(lane, "next", line)
    return held(lane, lambda: lane._writer.reward(key_of("next"), value_of(line))) is not False


@pytest.mark.parametrize("value", [2**62, 2**63, 2**64 - 1])
def test_counters_that_make_no_sense_begin_again(
    channel: MakeChannel, caplog: pytest.LogCaptureFixture, value: int
) -> None:
    """The next owner says so, finds the records by their rows, gives no ticket twice, and everything adds up."""
    made = channel(capacity=8)
    lane = made.claim()
    for stamp in range(1, 12):
        add(lane, stamp)
    wait_for_reward(lane, "a", 12)
    lane.release()
    for name, (_, kind) in layout.LANE_FIELDS.items():
        if kind == "u64" and name not in ("owner", "owner_ticks"):
            made.control.set(f"lane.0.{name}", value)
        elif kind == "f64":
            made.control.set(f"lane.0.{name}", float("nan"))
    with caplog.at_level(logging.WARNING):
        heir = made.claim()
    assert "head" in caplog.text
    assert (heir.get("head"), heir.get("completed"), heir.get("pending")) == (11, 11, 1)
    assert balance(made.control) == 0
    assert heir._writer.complete(key_of("a"), value_of(12))["sequence"] == 12
    assert heir._writer.next_ticket() == 13
    assert made.reader(verify=True).recent(100)["version"].tolist() == list(range(5, 13))
    assert heir.get("damaged") > 0


@pytest.mark.parametrize("head", [0, 3, 9, 10**15])
def test_a_wrong_count_of_records_is_put_right(channel: MakeChannel, head: int) -> None:
    """The rows know better; numbers go on after the newest."""
    made = channel(capacity=8)
    lane = made.claim()
    for stamp in range(1, 12):
        add(lane, stamp)
    lane.release()
    made.control.set("lane.0.head", head)
    heir = made.claim()
    assert heir.get("head") == 11
    assert add(heir, 12) == 12
    assert balance(made.control) == 0
    assert made.reader().recent(100)["version"].tolist() == list(range(5, 13))
