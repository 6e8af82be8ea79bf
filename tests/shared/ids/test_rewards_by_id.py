"""Rewards by the id of their decision: counted once, wherever they come in and whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import key_of, payload
from children import fresh
from proof import Planted, at_line, raise_planted
from tandem.shared.experiences.lane import Lane
from tandem.shared.experiences.records import SEND, WAIT
from tandem.shared.ids.decision_id import DecisionId
from tandem.shared.ids.rewards_by_id import Outcome, RewardsById
from tandem.shared.values import id_hash

MakeChannel = Callable[..., Any]


def decide(lane: Lane, key: str, stamp: int = 1) -> DecisionId:
    """A decision that waits in the lane."""
    with lane.hold() as writer:
        assert writer is not None
        ticket = writer.next_ticket()
        writer.defer(ticket, payload(lane.records, ticket, stamp), key_of(key), b"")
    return DecisionId(lane.control.get("series"), ticket)


def give(lane: Lane, name: DecisionId, value: float, final: bool = True, reward_id: str = "") -> Outcome:
    """A reward that comes in at the lane's process, which remembers nothing of earlier ones."""
    by_id = RewardsById(lane)
    with lane.hold() as writer:
        assert writer is not None
        return by_id.give(writer, name, value, final, id_hash(reward_id) if reward_id else 0)


def counting(lane: Lane, name: DecisionId, reward_id: str = "", by_id: RewardsById | None = None) -> Callable[[], Any]:
    """A call that counts 1.0 at the lane: the last reward, or with an id a partial one."""
    known = by_id or RewardsById(lane)

    def count() -> Outcome:
        with lane.hold() as writer:
            assert writer is not None
            return known.give(writer, name, 1.0, not reward_id, id_hash(reward_id) if reward_id else 0)

    return count


def earned(made: Any, name: DecisionId) -> list[float]:
    """The rewards of the records of this decision."""
    rows = made.reader(verify=True).recent(10**6)
    return [float(row["actual_reward"]) for row in rows if int(row["ticket"]) == name.ticket]


@pytest.fixture
def lanes(channel: MakeChannel) -> Any:
    """A channel and two claimed lanes of it."""
    made = channel(lanes=2, capacity=1024, pending=64)
    both = made.claim(), made.claim()
    yield made, *both
    for lane in both:
        lane.release()


def test_a_reward_completes_its_decision_and_no_newer_one(lanes: Any) -> None:
    """Of two decisions under one key the id names one: the older one takes no reward once it was superseded."""
    made, first, _ = lanes
    older, newer = decide(first, "k", 1), decide(first, "k", 2)
    assert give(first, older, 5.0) is Outcome.GONE
    assert give(first, newer, 0.5) is Outcome.COUNTED
    assert earned(made, older) == []
    assert earned(made, newer) == [0.5]


def test_a_reward_may_come_in_at_another_process(lanes: Any) -> None:
    """The process that did not decide sends it on; the record of the right decision gets it, once."""
    made, first, second = lanes
    name = decide(first, "k")
    other = decide(second, "other")
    assert give(second, name, 0.25) is Outcome.COUNTED
    with first.hold() as writer:
        writer.collect()
    assert earned(made, name) == [0.25]
    assert earned(made, other) == []
    for lane in (first, second):
        assert give(lane, name, 0.75) is Outcome.REPEATED
        assert give(lane, name, 0.75, final=False, reward_id="late") is Outcome.REPEATED
    assert earned(made, name) == [0.25]


@pytest.mark.parametrize("reward_id", ["", "part"])
def test_two_processes_at_the_same_moment_count_one_reward_once(channel: MakeChannel, reward_id: str) -> None:
    """The same reward comes in at a second process before each line of the first in turn: sent again for as long as
    it is busy, it is in the record once, and whoever was told that it is counted already was told the truth.
    """
    made = channel(lanes=3, capacity=1024, pending=256)
    owner, second, third = made.claim(), made.claim(), made.claim()
    busy, reached, names = 0, True, []
    while reached:
        name = decide(owner, f"k{len(names)}", len(names) + 1)
        names.append(name)
        told: list[Outcome] = []
        count, other = counting(second, name, reward_id), counting(third, name, reward_id)

        def outer(count: Callable[[], Any] = count, told: list[Outcome] = told) -> None:
            told.append(count())

        def inner(other: Callable[[], Any] = other, told: list[Outcome] = told) -> None:
            told.append(other())

        reached = at_line(outer, len(names), inner)
        for again in (count, other):
            while Outcome.BUSY in told:
                told.remove(Outcome.BUSY)
                told.append(again())
                busy += 1
        assert set(told) <= {Outcome.COUNTED, Outcome.REPEATED}
        assert told.count(Outcome.COUNTED) <= 1
    with owner.hold() as writer:
        writer.collect()
    if reward_id:
        assert {give(owner, name, 0.0) for name in names} == {Outcome.COUNTED}
    assert [earned(made, name) for name in names] == [[1.0]] * len(names)
    assert busy, "the two never met"
    for lane in (owner, second, third):
        lane.release()


def test_a_decision_that_is_being_settled_answers_busy(lanes: Any) -> None:
    """Its process may take the reward or not: until that is known nobody is told either."""
    _, first, second = lanes
    name = decide(first, "k")
    place = int((first.pending.tickets == name.ticket).argmax())
    assert first.forwarded.mark(place, name.ticket) is None
    assert give(second, name, 1.0) is Outcome.BUSY
    assert give(second, name, 1.0, final=False, reward_id="a") is Outcome.BUSY
    with first.hold() as writer:
        writer.drop(key_of("k"))
    assert give(second, name, 1.0) is Outcome.GONE


def test_a_decision_that_was_superseded_elsewhere_is_gone(lanes: Any) -> None:
    """Also before its own process has heard of it."""
    _, first, second = lanes
    older = decide(first, "k")
    decide(second, "k", 2)
    assert give(second, older, 1.0) is Outcome.GONE
    assert give(second, older, 1.0, final=False, reward_id="a") is Outcome.GONE


def test_what_was_never_decided_is_unknown(lanes: Any) -> None:
    """Ids of another series, of lanes that are not there, and of tickets not given out yet name nothing."""
    _, first, _ = lanes
    name = decide(first, "k")
    for wrong in (
        DecisionId(name.series ^ 1, name.ticket),
        DecisionId(name.series, name.ticket + 1),
        DecisionId(name.series, 9 << 48 | 1),
        DecisionId(name.series, 0),
        DecisionId(name.series, 2**64 - 1),
    ):
        assert give(first, wrong, 1.0) is Outcome.UNKNOWN
    assert first.get("unmatched") == 5
    assert give(first, name, float("nan")) is Outcome.REFUSED
    assert give(first, name, 1.0) is Outcome.COUNTED


def test_a_blocked_decision_takes_no_reward(lanes: Any) -> None:
    """A WAIT is complete at once: it is gone, not rewarded already."""
    made, first, _ = lanes
    with first.hold() as writer:
        ticket = writer.next_ticket()
        writer.append(payload(first.records, ticket, 3))
    row = made.reader(verify=True).recent(1)[0]
    expected = Outcome.GONE if int(row["decision"]) == WAIT else Outcome.REPEATED
    assert int(row["decision"]) in (SEND, WAIT)
    assert give(first, DecisionId(first.control.get("series"), ticket), 1.0) is expected


def test_a_partial_reward_counts_once_for_its_id(lanes: Any) -> None:
    """Sent again, at whichever process, it is known; one of another id counts, and so does one without."""
    made, first, second = lanes
    name = decide(first, "k")
    assert give(first, name, 1.0, final=False, reward_id="a") is Outcome.COUNTED
    assert give(second, name, 1.0, final=False, reward_id="a") is Outcome.REPEATED
    assert give(second, name, 2.0, final=False, reward_id="b") is Outcome.COUNTED
    assert give(first, name, 2.0, final=False, reward_id="b") is Outcome.REPEATED
    assert give(first, name, 4.0, final=False) is Outcome.COUNTED
    assert give(first, name, 4.0, final=False) is Outcome.COUNTED
    assert give(second, name, 8.0) is Outcome.COUNTED
    with first.hold() as writer:
        writer.collect()
    assert earned(made, name) == [19.0]


def test_the_same_id_counts_for_each_decision(lanes: Any) -> None:
    """A reward's id is told apart by the decision that it belongs to."""
    made, first, _ = lanes
    names = [decide(first, f"k{number}") for number in range(3)]
    for name in names:
        assert give(first, name, 1.0, final=False, reward_id="click") is Outcome.COUNTED
        assert give(first, name, 0.0) is Outcome.COUNTED
    assert [earned(made, name) for name in names] == [[1.0]] * 3


def test_the_newest_partial_rewards_are_remembered(lanes: Any) -> None:
    """The journal has an entry for each place of the pending table; what is older counts again (see docs/http.md)."""
    _, first, second = lanes
    name = decide(first, "k")
    for number in range(200):
        assert give(first, name, 1.0, final=False, reward_id=f"r{number}") is Outcome.COUNTED
    for number in range(199, 199 - 64, -1):
        for lane in (first, second):
            assert give(lane, name, 1.0, final=False, reward_id=f"r{number}") is Outcome.REPEATED


def test_a_partial_reward_counts_once_wherever_its_process_is_killed(channel: MakeChannel) -> None:
    """Killed before each line in turn while it counts one, the process's successor counts it if it was not counted."""
    made = channel(lanes=2, capacity=1024, pending=64)
    owner = made.claim()
    name = decide(owner, "k")
    sent = repeated = 0
    while True:
        sent += 1
        pid = os.fork()
        if pid == 0:
            fresh()
            at_line(counting(made.claim(), name, f"r{sent}"), sent, lambda: os.kill(os.getpid(), signal.SIGKILL))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        second = made.claim()
        outcome = give(second, name, 1.0, final=False, reward_id=f"r{sent}")
        assert outcome in (Outcome.COUNTED, Outcome.REPEATED)
        repeated += outcome is Outcome.REPEATED
        assert give(owner, name, 1.0, final=False, reward_id=f"r{sent}") is Outcome.REPEATED
        second.release()
        if not os.WIFSIGNALED(status):
            break
    assert sent > 40
    assert repeated > 1, "no kill came after the reward was counted"
    assert give(owner, name, 0.0) is Outcome.COUNTED
    assert earned(made, name) == [float(sent)]
    owner.release()


def test_a_partial_reward_counts_once_wherever_an_exception_arrives(lanes: Any) -> None:
    """The same for a process that lives on: the next call finds out whether the last one counted."""
    made, first, second = lanes
    name = decide(second, "k")
    by_id, sent = RewardsById(first), 0
    reached = True
    while reached:
        sent += 1
        count = counting(first, name, f"r{sent}", by_id)
        try:
            reached = at_line(count, sent, raise_planted)
        except Planted:
            reached = True
        assert count() in (Outcome.COUNTED, Outcome.REPEATED)
        assert count() is Outcome.REPEATED
    assert sent > 40
    assert give(second, name, 0.0) is Outcome.COUNTED
    assert earned(made, name) == [float(sent)]


def test_a_final_reward_by_id_counts_once_wherever_its_process_is_killed(channel: MakeChannel) -> None:
    """Killed before each line in turn: the decision has one record with its reward once it was sent again."""
    made = channel(lanes=2, capacity=1024, pending=64)
    owner = made.claim()
    names = []
    while True:
        name = decide(owner, f"k{len(names)}", len(names) + 1)
        names.append(name)
        pid = os.fork()
        if pid == 0:
            fresh()
            at_line(counting(made.claim(), name), len(names), lambda: os.kill(os.getpid(), signal.SIGKILL))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        second = made.claim()
        assert give(second, name, 1.0) in (Outcome.COUNTED, Outcome.REPEATED)
        second.release()
        if not os.WIFSIGNALED(status):
            break
    with owner.hold() as writer:
        writer.collect()
    assert len(names) > 30
    assert [earned(made, name) for name in names] == [[1.0]] * len(names)
    owner.release()


def test_nonsense_in_the_journal_is_passed_over(lanes: Any) -> None:
    """Whatever lies in a lane's journal, rewards go on to be counted, once; the damage is counted too."""
    made, first, second = lanes
    name = decide(first, "k")
    journals = first.forwarded.cells.journals
    journals[first.index][:] = 2**64 - 1
    journals[second.index][:] = name.ticket
    assert give(first, name, 1.0, final=False, reward_id="a") is Outcome.COUNTED
    assert give(first, name, 1.0, final=False, reward_id="a") is Outcome.REPEATED
    assert give(second, name, 1.0, final=False, reward_id="a") is Outcome.REPEATED
    assert give(second, name, 2.0, final=False, reward_id="b") is Outcome.COUNTED
    assert give(first, name, 4.0) is Outcome.COUNTED
    assert earned(made, name) == [7.0]
    assert first.get("damaged") + second.get("damaged") > 0
