"""What decisions earn that are rewarded in parts, by several processes, late, or never."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import balance, key_of, wait_for_reward
from proof import Planted, at_line, raise_planted
from tandem.shared.experiences.earnings import GivenUp, RewardRules, _shortened
from tandem.shared.experiences.lane import Lane
from tandem.shared.values import FLOAT32_MAX

MakeChannel = Callable[..., Any]
X = key_of("x")


def lanes_of(made: Any, count: int, rules: RewardRules) -> list[Lane]:
    lanes = [made.claim() for _ in range(count)]
    for lane in lanes:
        lane.earnings.rules = rules
    return lanes


def give(lane: Lane, value: float, final: bool = False, key: bytes = X) -> bool:
    """A reward arrives at the lane's process; what it answers."""
    with lane.hold() as writer:
        assert writer is not None
        return (writer.reward if final else writer.add_reward)(key, value) is not False


def expire(lane: Lane) -> None:
    with lane.hold() as writer:
        assert writer is not None
        writer.expire(2**62)


def rewards_of(made: Any) -> list[float]:
    return sorted(made.reader().recent(10_000)["actual_reward"].tolist())


def is_balanced(made: Any) -> bool:
    return all(balance(made.control, lane) == 0 for lane in range(made.control.get("lanes")))


@pytest.mark.parametrize(("aggregation", "earned"), [("sum", 7.0), ("last", 4.0), ("first", 1.0)])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 1, 0)])
def test_parts_are_added_up(channel: MakeChannel, aggregation: str, earned: float, where: tuple[int, ...]) -> None:
    """1, then 2, then 4 as the last one, wherever each of them comes in, in one record."""
    made = channel(lanes=2)
    lanes = lanes_of(made, 2, RewardRules(aggregation=aggregation))
    wait_for_reward(lanes[0], "x", 1)
    assert give(lanes[where[0]], 1.0)
    assert give(lanes[where[1]], 2.0)
    assert lanes[0].get("pending") == 1
    assert give(lanes[where[2]], 4.0, final=True)
    lanes[0]._writer.collect()
    assert rewards_of(made) == [earned]
    assert sum(lane.get("partial") for lane in lanes) == 2
    assert (lanes[0].get("reward_count"), lanes[0].get("reward_sum")) == (1, earned)
    assert is_balanced(made)


@pytest.mark.parametrize(("aggregation", "earned"), [("sum", 3.0), ("last", 2.0), ("first", 1.0)])
def test_parts_at_two_processes_are_put_in_order(
    channel: MakeChannel, monkeypatch: pytest.MonkeyPatch, aggregation: str, earned: float
) -> None:
    """The first one came first although its lane has the higher number."""
    made = channel(lanes=3)
    owner, other, third = lanes_of(made, 3, RewardRules(aggregation=aggregation))
    wait_for_reward(owner, "x", 1)
    assert give(third, 1.0)
    late = int(owner.pending.entry(X)["decided_ns"]) + 500_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: late)
    assert give(other, 2.0)
    monkeypatch.undo()
    expire(owner)
    assert rewards_of(made) == [earned]


@pytest.mark.parametrize("default", [None, 0.0, -2.5])
def test_a_decision_without_a_reward_earns_the_default(channel: MakeChannel, default: float | None) -> None:
    """It is learned from like any other; without a default it is dropped, as ever. What comes later is late."""
    made = channel()
    (lane,) = lanes_of(made, 1, RewardRules(default))
    wait_for_reward(lane, "x", 1)
    expire(lane)
    has_default = default is not None
    assert rewards_of(made) == ([default] if has_default else [])
    assert (lane.get("defaulted"), lane.get("expired")) == (int(has_default), int(not has_default))
    assert lane.get("reward_count") == has_default
    assert [float(row["actual_reward"]) for row in lane.take_arrived()] == rewards_of(made)
    assert not give(lane, 1.0, final=True)
    assert not give(lane, 1.0)
    assert (lane.get("late"), lane.get("unmatched")) == (2, 0)
    assert rewards_of(made) == ([default] if has_default else [])
    wait_for_reward(lane, "x", 2)
    assert give(lane, 1.0, final=True)
    assert not give(lane, 1.0, final=True)
    assert (lane.get("late"), lane.get("unmatched")) == (2, 1)
    assert is_balanced(made)


@pytest.mark.parametrize("default", [None, 0.0])
@pytest.mark.parametrize("end", ["expired", "newer", "newer elsewhere", "full", "forgotten"])
def test_what_was_earned_counts_however_the_decision_ends(
    channel: MakeChannel, default: float | None, end: str
) -> None:
    """No last reward comes: what it has is what it earned, and nobody takes the default for it."""
    made = channel(lanes=2, pending=2)
    lane, other = lanes_of(made, 2, RewardRules(default))
    wait_for_reward(lane, "x", 1)
    wait_for_reward(lane, "y", 2)
    assert give(other, 1.5)
    assert give(lane, 1.0)
    if end == "expired":
        expire(lane)
    elif end == "newer":
        wait_for_reward(lane, "x", 3)
    elif end == "newer elsewhere":
        wait_for_reward(other, "x", 3)
        lane._writer.collect()
    elif end == "full":
        wait_for_reward(lane, "z", 3)
    else:
        with lane.hold() as writer:
            assert writer is not None
            assert writer.drop(X)
    assert 2.5 in rewards_of(made)
    assert lane.get("superseded") == lane.get("dropped") == 0
    # `y` expired too, and earned the default if there is one.
    assert lane.get("defaulted") == (end == "expired" and default is not None)
    assert lane.get("displaced") == (end == "full")
    assert is_balanced(made)


def test_a_full_table_gives_up_the_oldest_with_the_default(channel: MakeChannel) -> None:
    """Nobody is learned from as if all had been rewarded: the one that had to go earned nothing so far."""
    made = channel(pending=3)
    (lane,) = lanes_of(made, 1, RewardRules(0.0))
    for number, key in enumerate("abcde"):
        wait_for_reward(lane, key, number + 1)
    assert (lane.get("displaced"), lane.get("defaulted"), lane.get("dropped")) == (2, 2, 0)
    assert rewards_of(made) == [0.0, 0.0]
    assert not give(lane, 1.0, final=True, key=key_of("a"))
    assert lane.get("late") == 1
    assert is_balanced(made)


@pytest.mark.parametrize("where", [0, 1])
def test_a_newer_decision_settles_the_older_with_the_default(channel: MakeChannel, where: int) -> None:
    """Under one key only the newest can be rewarded: the older one was not, here or at another process."""
    made = channel(lanes=2)
    lanes = lanes_of(made, 2, RewardRules(0.0))
    wait_for_reward(lanes[0], "x", 1)
    wait_for_reward(lanes[where], "x", 2)
    lanes[0]._writer.collect()
    assert rewards_of(made) == [0.0]
    assert give(lanes[0], 1.0, final=True)
    lanes[1]._writer.collect()
    assert rewards_of(made) == [0.0, 1.0]
    assert lanes[0].get("superseded") == lanes[1].get("superseded") == 0
    assert is_balanced(made)


def test_a_reset_earns_nothing(channel: MakeChannel) -> None:
    """Who clears the lane wants none of it learned from."""
    made = channel()
    (lane,) = lanes_of(made, 1, RewardRules(0.0))
    wait_for_reward(lane, "x", 1)
    assert give(lane, 1.0)
    with lane.hold() as writer:
        assert writer is not None
        writer.clear()
    assert rewards_of(made) == []
    assert (lane.get("dropped"), lane.get("reward_count")) == (1, 0)


@pytest.mark.parametrize("dead", ["owner", "sender", "both"])
def test_parts_outlive_owner_and_sender(channel: MakeChannel, dead: str) -> None:
    """What was acknowledged counts, whoever owns the lanes by then."""
    made = channel(lanes=2)
    owner, sender = lanes_of(made, 2, RewardRules())
    wait_for_reward(owner, "x", 1)
    assert give(sender, 1.0)
    assert give(owner, 2.0)
    for lane, name in ((owner, "owner"), (sender, "sender")):
        if dead in (name, "both"):
            lane.disown()
    living = [made.claim() for _ in range(2 if dead == "both" else 1)]
    for lane in (*living, *([] if dead != "sender" else [owner])):
        expire(lane)
    assert rewards_of(made) == [3.0]


@pytest.mark.parametrize("at_owner", [True, False])
def test_a_part_counts_wholly_or_not_at_all(channel: MakeChannel, at_owner: bool) -> None:
    """An exception at every line of the call: what the decision earns in the end is one of the two."""
    made = channel(lanes=2)
    owner, other = lanes_of(made, 2, RewardRules())
    sender, line, ended = owner if at_owner else other, 0, False
    while not ended:
        line += 1
        key = key_of(f"k{line}")
        wait_for_reward(owner, f"k{line}", line)
        assert give(sender, 1.0, key=key)
        try:
            at_line(functools.partial(give, sender, 2.0, key=key), line, raise_planted)
            ended = True
        except Planted:
            pass
        assert give(owner, 4.0, final=True, key=key)
        earned = float(made.reader().recent(1)["actual_reward"][0])
        assert earned == 7.0 if ended else earned in (5.0, 7.0), line
    assert line > 10


def test_numbers_that_no_record_can_hold(channel: MakeChannel) -> None:
    """A part that is not finite is refused; a sum beyond float32 is the largest number there is."""
    made = channel()
    (lane,) = lanes_of(made, 1, RewardRules())
    wait_for_reward(lane, "x", 1)
    for bad in (math.nan, math.inf, 1e39):
        assert not give(lane, bad)
    assert lane.get("refused_rewards") == 3
    assert give(lane, 3e38)
    assert give(lane, 3e38)
    assert give(lane, 3e38, final=True)
    assert rewards_of(made) == [FLOAT32_MAX]


def test_damage_is_told_and_skipped(channel: MakeChannel) -> None:
    """A flipped bit in what another lane keeps costs that part, never more."""
    made = channel(lanes=2)
    owner, other = lanes_of(made, 2, RewardRules(0.0))
    wait_for_reward(owner, "x", 1)
    assert give(other, 1.0)
    assert give(owner, 2.0)
    cells = other.forwarded.cells
    cell = cells.of_partial(owner.index, owner.pending.place_of(X) or 0)
    for bit in range(64):
        cells.by_lane[other.index][cell + 1] ^= 1 << bit
        assert owner.earnings.of(owner.pending.place_of(X) or 0, owner.pending.ticket_in(0) or 0) in (2.0, None)
        cells.by_lane[other.index][cell + 1] ^= 1 << bit
    cells.by_lane[other.index][cell + 1] ^= 1 << 20
    expire(owner)
    assert rewards_of(made) == [2.0]
    assert owner.get("damaged") > 0


def test_the_keys_that_were_given_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of them are known, however many there were."""
    monkeypatch.setattr("tandem.shared.experiences.earnings._MOST_GIVEN_UP", 3)
    given_up = GivenUp()
    for key in (b"a", b"b", b"a", b"c", b"d"):
        given_up.add(key)
    assert [key in given_up for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    given_up.discard(b"c")
    assert b"c" not in given_up


def test_a_part_that_comes_while_the_last_reward_is_taken_in(channel: MakeChannel) -> None:
    """The owner is completing the decision by another's message: a part that it does not see any more is refused."""
    made = channel(lanes=3)
    owner, other, third = lanes_of(made, 3, RewardRules())
    wait_for_reward(owner, "x", 1)
    add, append = third.earnings.add, owner._writer.append
    reached, kept = threading.Event(), threading.Event()

    def held_append(payload: bytes) -> int:
        reached.set()
        assert kept.wait(10)
        return append(payload)

    def late_add(*arguments: Any) -> None:
        # The third process saw no message yet; the last reward comes and is taken in while it keeps the part.
        assert give(other, 4.0, final=True)
        taking_in.start()
        assert reached.wait(10)
        add(*arguments)

    owner._writer.append = held_append  # type: ignore[method-assign]
    third.earnings.add = late_add  # type: ignore[method-assign]
    taking_in = threading.Thread(target=owner._writer.collect)
    acknowledged = give(third, 1.0)
    kept.set()
    taking_in.join(10)
    assert rewards_of(made) == [5.0 if acknowledged else 4.0]


@pytest.mark.parametrize(("aggregation", "earned"), [("last", 2.0), ("first", 1.0)])
@pytest.mark.parametrize("hours", [1, 12, 24 * 30])
def test_parts_are_put_in_order_however_long_a_decision_waits(
    channel: MakeChannel, monkeypatch: pytest.MonkeyPatch, aggregation: str, earned: float, hours: int
) -> None:
    """A purchase may come days after the click, at another process."""
    made = channel(lanes=3)
    owner, other, third = lanes_of(made, 3, RewardRules(aggregation=aggregation))
    wait_for_reward(owner, "x", 1)
    decided = int(owner.pending.entry(X)["decided_ns"])
    monkeypatch.setattr("time.monotonic_ns", lambda: decided + hours * 3600 * 10**9)
    assert give(third, 1.0)
    monkeypatch.setattr("time.monotonic_ns", lambda: decided + 2 * hours * 3600 * 10**9)
    assert give(other, 2.0)
    monkeypatch.undo()
    expire(owner)
    assert rewards_of(made) == [earned]


def test_a_shortened_count_keeps_the_order() -> None:
    """Times from a tenth of a second to centuries, in 16 bits."""
    counts = sorted(
        {1 << bits for bits in range(36)} | {(1 << bits) - 1 for bits in range(1, 36)} | set(range(1, 9000))
    )
    shortened = [_shortened(count) for count in counts]
    assert shortened == sorted(shortened)
    assert shortened[:4095] == counts[:4095]
    assert shortened[-1] < 0xFFFF
    assert _shortened(2**60) == 0xFFFF
