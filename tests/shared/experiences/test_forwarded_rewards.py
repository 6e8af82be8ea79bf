"""Rewards find their decision across lanes, by ticket, exactly once; of one key the newest decision waits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_kit import balance, key_of, wait_for_reward
from proof import Planted, at_line, raise_planted
from tandem.shared.experiences.experience import Experience
from tandem.shared.experiences.lane import Lane
from tandem.shared.memory.segments import segment_path
from tandem.shared.replay import ExperienceReplayBuffer

MakeChannel = Callable[..., Any]


def pending(territory: str) -> Experience:
    return Experience(np.ones(4, np.float32), 1, 0, 0.5, "SEND", 0.1, timestamp=1.0, territory_id=territory)


def two_lanes(instance: Any) -> tuple[ExperienceReplayBuffer, ExperienceReplayBuffer]:
    owner, other = ExperienceReplayBuffer(instance), ExperienceReplayBuffer(instance)
    assert owner.lane.index != other.lane.index
    return owner, other


def give(lane: Lane, key: str, value: float) -> bool:
    """A reward arrives at the lane's process; what it answers."""
    with lane.hold():
        return lane._writer.reward(key_of(key), value) is not False


def rewards_of(made: Any) -> list[float]:
    return sorted(made.reader().recent(10_000)["actual_reward"].tolist())


def test_a_reward_is_delivered_once(toy_instance: Callable[..., Any]) -> None:
    """Two rewards for one decision complete it once, with the first, and the second is answered so."""
    owner, other = two_lanes(toy_instance())
    assert owner.add(pending("x"))
    assert other.update_pending_reward("x", 0.25) is not None
    assert other.update_pending_reward("x", 0.75) is None
    assert [float(row["actual_reward"]) for row in owner.lane._writer.collect()] == [0.25]
    assert owner.lane._writer.collect() == []
    assert (owner.lane.get("delivered"), other.lane.get("forwarded"), other.lane.get("repeated")) == (1, 1, 1)
    assert other.update_pending_reward("x", 0.5) is None
    assert other.lane.get("unmatched") == 1


def test_a_reward_at_the_owner_yields_to_one_that_was_acknowledged(channel: MakeChannel) -> None:
    """What another process has answered True for is what counts."""
    made = channel(lanes=2)
    owner, other = made.claim(), made.claim()
    wait_for_reward(owner, "x", 5)
    assert give(other, "x", 5.0)
    assert not give(owner, "x", 7.0)
    assert rewards_of(made) == [5.0]
    assert (owner.get("reward_count"), owner.get("reward_sum")) == (1, 5.0)
    assert balance(made.control) == 0


@pytest.mark.parametrize("what", ["newer", "dropped", "expired", "full", "cleared"])
def test_an_acknowledged_reward_counts_whatever_the_owner_does_next(channel: MakeChannel, what: str) -> None:
    """A decision that is about to be given up is looked after first."""
    made = channel(lanes=2, pending=2)
    owner, other = made.claim(), made.claim()
    wait_for_reward(owner, "x", 5)
    wait_for_reward(owner, "y", 6)
    assert give(other, "x", 5.0)
    if what in ("newer", "full"):
        wait_for_reward(owner, "x" if what == "newer" else "z", 7)
    else:
        calls: dict[str, Callable[[], Any]] = {
            "dropped": lambda: owner._writer.drop(key_of("x")),
            "expired": lambda: owner._writer.expire(2**62),
            "cleared": owner._writer.clear,
        }
        with owner.hold():
            calls[what]()
    assert (owner.get("reward_count"), owner.get("reward_sum"), owner.get("completed")) == (1, 5.0, 1)
    assert owner.get("superseded") == 0
    assert balance(made.control) == 0


def test_a_late_reward_never_goes_to_a_newer_decision(toy_instance: Callable[..., Any]) -> None:
    """A message names a ticket: a newer decision under the same key keeps waiting."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    other.update_pending_reward("x", 0.25)
    owner.add(pending("x"))
    assert [float(row["actual_reward"]) for row in owner.lane._writer.collect()] == [0.25]
    assert owner.lane.get("pending") == 1


@pytest.mark.parametrize("dead", ["owner", "sender", "both"])
def test_letters_outlive_owner_and_sender(toy_instance: Callable[..., Any], dead: str) -> None:
    """An acknowledged reward completes its decision whoever owns the lane by then."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    index = owner.lane.index
    if dead != "sender":
        owner.close()
    assert other.update_pending_reward("x", 0.5) is not None
    if dead != "owner":
        other.close()
    lane = owner.lane if dead == "sender" else Lane.claim(owner.control, owner.instance.records)
    lane._writer.collect()
    assert lane.index == index
    assert (lane.get("pending"), lane.get("delivered"), lane.get("completed")) == (0, 1, 1)
    lane.release()


def test_as_many_rewards_fit_as_decisions_can_wait(channel: MakeChannel) -> None:
    """Not one of the rewards that were acknowledged is lost when their owner collects late."""
    made = channel(lanes=3, pending=700, capacity=4096)
    first, second, sender = made.claim(), made.claim(), made.claim()
    for stamp in range(700):
        wait_for_reward(first, f"a{stamp}", stamp)
        wait_for_reward(second, f"b{stamp}", stamp)
    yes = sum(give(sender, f"{lane}{stamp}", float(stamp)) for lane in "ab" for stamp in range(700))
    assert yes == 1400
    for lane in (first, second):
        lane._writer.collect()
        assert (lane.get("reward_count"), lane.get("pending")) == (700, 0)
    assert rewards_of(made) == sorted([float(stamp) for stamp in range(700)] * 2)


def test_a_decision_at_another_process_supersedes(channel: MakeChannel) -> None:
    """Of two decisions under one key the newest waits, the older counts as superseded, the reward counts once."""
    made = channel(lanes=2)
    first, second = made.claim(), made.claim()
    wait_for_reward(first, "k", 1)
    wait_for_reward(second, "k", 2)
    assert give(first, "k", 9.0)
    second._writer.collect()
    assert not give(first, "k", 9.0)
    assert not give(second, "k", 9.0)
    rows = made.reader().recent(10)
    assert [(int(row["version"]), float(row["actual_reward"])) for row in rows] == [(2, 9.0)]
    assert (first.get("superseded"), second.get("superseded")) == (1, 0)
    assert [first.get("pending"), second.get("pending")] == [0, 0]
    assert [balance(made.control, lane) for lane in (0, 1)] == [0, 0]


def test_a_key_may_wander_for_ever(channel: MakeChannel) -> None:
    """Each decision supersedes the one before, wherever that was made."""
    made = channel(lanes=3)
    lanes = [made.claim() for _ in range(3)]
    for stamp in range(60):
        wait_for_reward(lanes[stamp * 7 % 3], "k", stamp)
    for lane in lanes:
        lane._writer.collect()
    assert sum(lane.get("pending") for lane in lanes) == 1
    assert sum(lane.get("superseded") for lane in lanes) == 59
    assert give(lanes[0], "k", 1.0)
    for lane in lanes:
        lane._writer.collect()
    assert rewards_of(made) == [1.0]
    assert made.reader().recent(1)["version"].tolist() == [59]
    assert not any(balance(made.control, lane.index) for lane in lanes)


def test_keys_that_differ_by_a_zero_byte_are_different(channel: MakeChannel) -> None:
    """Also at another process, and for the lane's next owner."""
    made = channel(lanes=2)
    owner, other = made.claim(), made.claim()
    for stamp, key in enumerate(("x", "x\0", "x\0\0", "\0x")):
        wait_for_reward(owner, key, stamp)
    assert owner.get("pending") == 4
    assert give(other, "x\0", 1.0)
    owner.release()
    heir = made.claim()
    assert heir.pending.keys() == [key_of(key) for key in ("x", "x\0\0", "\0x")]
    assert made.reader().recent(10)["version"].tolist() == [1]


def test_a_damaged_letter_is_not_delivered(toy_instance: Callable[..., Any]) -> None:
    """A flipped bit in a message is noticed, counted, and told once."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    other.update_pending_reward("x", 0.5)
    path = segment_path(owner.control.instance, f"mail{other.lane.index}")
    messages = np.memmap(path, np.uint64, "r+", 4096).reshape(-1, 2)
    place = int(np.flatnonzero(messages[:, 0] == int(owner.lane.pending.entry(b"x")["ticket"]))[0])
    messages[place, 1] ^= 1
    assert owner.lane._writer.collect() == []
    assert owner.lane._writer.collect() == []
    assert (owner.lane.get("pending"), owner.lane.get("damaged")) == (1, 1)


@pytest.mark.parametrize("value", [1e39, -1e39, math.inf, math.nan, "x", None, 10**400])
def test_a_reward_that_no_record_can_hold_is_refused_where_it_comes_in(
    toy_instance: Callable[..., Any], value: Any
) -> None:
    """At the owner and at another process; the decision keeps waiting, and the refusal is counted."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    for buffer in (owner, other):
        assert buffer.update_pending_reward("x", value) is None
        assert buffer.lane.get("refused_rewards") == 1
    found = other.lane.forwarded.look(b"x")[0]
    if isinstance(value, float) and not math.isnan(value):
        with pytest.raises(ValueError, match="cannot be stored"):
            other.lane.forwarded.send(found, value)
    owner.lane._writer.collect()
    assert owner.update_pending_reward("x", 3e38) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [("owner", "sender"), ("sender", "owner"), ("sender", "another"), ("another", "owner"), ("another", "sender")],
)
def test_two_rewards_at_the_same_moment(channel: MakeChannel, first: str, second: str) -> None:
    """Whatever line of one the other comes in at: one is acknowledged at most, and that one counts."""
    made = channel(lanes=3, capacity=4096)
    lanes = {name: made.claim() for name in ("owner", "sender", "another")}
    owner, line, reached = lanes["owner"], 0, True
    while reached:
        line += 1
        answers: dict[float, bool] = {}

        def call(name: str, value: float, key: str = f"k{line}", answers: dict[float, bool] = answers) -> None:
            answers[value] = give(lanes[name], key, value)

        wait_for_reward(owner, f"k{line}", line)
        reached = at_line(lambda: call(first, 2.0 * line), line, lambda: call(second, 2.0 * line + 1))  # noqa: B023
        owner._writer.collect()
        acknowledged = [value for value, yes in answers.items() if yes]
        assert len(acknowledged) <= 1, line
        if not acknowledged and owner.get("reward_count") < line:
            # Nobody got it; the next one does.
            acknowledged = [1.0]
            assert give(owner, f"k{line}", 1.0)
        row = made.reader().recent(1)[0]
        assert int(row["version"]) == line
        assert not acknowledged or float(row["actual_reward"]) == acknowledged[0], line
        assert owner.get("reward_count") == line
    assert line > 20
    assert balance(made.control) == 0


def test_a_sender_that_fails_anywhere_blocks_nobody(channel: MakeChannel) -> None:
    """An exception before any line of a reward at another process: the next reward counts, once."""
    made = channel(lanes=2, capacity=4096)
    owner, sender = made.claim(), made.claim()
    line, reached = 0, True
    while reached:
        line += 1
        wait_for_reward(owner, f"k{line}", line)

        def call(line: int = line) -> None:
            give(sender, f"k{line}", float(line))

        reached = True
        try:
            reached = at_line(call, line, raise_planted)
        except Planted:
            give(sender, f"k{line}", float(line))
        owner._writer.collect()
        assert owner.get("reward_count") == line, f"line {line}"
    assert line > 20
    assert rewards_of(made) == [float(n) for n in range(1, line + 1)]


def test_a_mark_of_a_dead_sender_blocks_nobody(channel: MakeChannel) -> None:
    """A process that died between its mark and its message leaves the decision to the next reward."""
    made = channel(lanes=3)
    owner, dead, sender = made.claim(), made.claim(), made.claim()
    wait_for_reward(owner, "x", 5)
    found = sender.forwarded.look(key_of("x"))[0]
    cell = dead.forwarded.cells.of(found.lane, found.place)
    dead.forwarded.cells.by_lane[dead.index][cell] = found.ticket
    assert not give(sender, "x", 1.0)
    made.control.set(f"lane.{dead.index}.owner_ticks", 1)
    assert give(sender, "x", 5.0)
    owner._writer.collect()
    assert rewards_of(made) == [5.0]


def test_what_waits_survives_a_stop(toy_instance: Callable[..., Any], tmp_path: Any) -> None:
    """A reward that was acknowledged and not collected when the instance was stopped counts after the next start."""
    from tandem.shared.instance import Instance, create_instance
    from tandem.shared.memory.segments import remove_instance
    from tandem.shared.saved_state import save

    instance = toy_instance()
    owner, other = two_lanes(instance)
    owner.add(pending("x"))
    assert other.update_pending_reward("x", 0.5) is not None
    owner.close()
    other.close()
    save(instance.control, instance.data_dir / "kept")
    remove_instance(instance.name)
    create_instance(instance.name, instance.config)
    again = Instance(instance.name)
    heir = Lane.claim(again.control, again.records)
    assert (heir.get("pending"), heir.get("reward_count"), heir.get("completed")) == (0, 1, 1)
    heir.release()
    again.control.close()
    assert os.path.exists(segment_path(instance.name, "control"))
