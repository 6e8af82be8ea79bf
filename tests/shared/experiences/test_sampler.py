"""Sampling: what can be drawn, how it is drawn, and that rows are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_kit import add, payload, value_of, wrong_rows
from tandem.shared.experiences.batch import BatchRoom, RecordTensors
from tandem.shared.experiences.records import SEND, WAIT
from tandem.shared.memory.arrays import SharedArray

MakeChannel = Callable[..., Any]


def test_nothing_is_sampled_from_nothing(channel: MakeChannel) -> None:
    """An empty ring, or none asked for: an empty array of the right dtype."""
    made = channel()
    reader = made.reader()
    assert len(reader.sample(5)) == 0
    assert reader.sample(5).dtype == made.records.record
    assert len(reader.recent(5)) == 0
    add(made.claim(), 1)
    assert len(reader.sample(0)) == 0
    assert len(reader.sample(-1)) == 0


def test_a_sample_has_no_repetition_and_at_most_what_is_there(channel: MakeChannel) -> None:
    """min(n, available) different records, from all lanes."""
    made = channel(capacity=16, lanes=3)
    lanes = [made.claim() for _ in range(3)]
    for stamp in range(60):
        add(lanes[stamp % 2], stamp)
    reader = made.reader()
    assert reader.size() == 32
    for count in (1, 5, 31, 32, 50):
        rows = reader.sample(count)
        assert len(rows) == min(count, 32)
        assert len(set(rows["ticket"].tolist())) == len(rows)
        assert wrong_rows(rows) == 0
    assert reader.torn == 0
    assert reader.sampled == 1 + 5 + 31 + 32 + 32


@pytest.mark.parametrize("count", [2, 8])
def test_every_record_is_equally_likely(channel: MakeChannel, count: int) -> None:
    """Over many draws no record is favoured, whichever lane it is in (chi-squared, 49 degrees, far tail)."""
    made = channel(capacity=40, lanes=2)
    lanes = [made.claim() for _ in range(2)]
    for stamp in range(50):
        add(lanes[stamp < 10], stamp)
    reader = made.reader(seed=5)
    seen: Counter[int] = Counter()
    draws = 4000
    for _ in range(draws):
        seen.update(reader.sample(count)["version"].tolist())
    expected = draws * count / 50
    assert sum((seen[stamp] - expected) ** 2 / expected for stamp in range(50)) < 110


def test_the_same_seed_draws_the_same(channel: MakeChannel) -> None:
    """Two readers with one seed agree; another seed does not."""
    made = channel()
    lane = made.claim()
    for stamp in range(64):
        add(lane, stamp)
    draws = [made.reader(seed).sample(8)["version"].tolist() for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_experiences_from_before_a_reset_are_left_out(channel: MakeChannel) -> None:
    """`first_version` bounds what is trained on."""
    made = channel()
    lane = made.claim()
    for stamp in range(20):
        add(lane, stamp)
    made.control.set("first_version", 15)
    assert sorted(made.reader().sample(100)["version"].tolist()) == [15, 16, 17, 18, 19]


def test_recent_are_the_newest_in_order_of_time(channel: MakeChannel) -> None:
    """Over all lanes, oldest of them first."""
    made = channel(capacity=8, lanes=2)
    lanes = [made.claim() for _ in range(2)]
    for stamp in range(30):
        add(lanes[stamp % 2], stamp)
    assert made.reader().recent(6)["version"].tolist() == [24, 25, 26, 27, 28, 29]


def test_what_is_newer_comes_once(channel: MakeChannel) -> None:
    """Of all lanes, each record once, the newest where there are more than asked for or than the ring holds."""
    made = channel(capacity=8, lanes=2)
    lanes, reader, marks = [made.claim() for _ in range(2)], made.reader(), {}
    assert len(reader.newer_than(marks, 100)) == 0
    for stamp in range(6):
        add(lanes[stamp % 2], stamp)
    assert sorted(reader.newer_than(marks, 100)["version"].tolist()) == [0, 1, 2, 3, 4, 5]
    assert len(reader.newer_than(marks, 100)) == 0
    for stamp in range(6, 30):
        add(lanes[0], stamp)
    assert reader.newer_than(marks, 3)["version"].tolist() == [27, 28, 29]
    add(lanes[1], 30)
    made.control.set("first_version", 31)
    add(lanes[1], 31)
    assert reader.newer_than(marks, 100)["version"].tolist() == [31]
    # A lane that was claimed anew after damage may begin below what was seen: what it holds is new.
    marks[0] = 10**6
    add(lanes[0], 40)
    assert 40 in reader.newer_than(marks, 100)["version"].tolist()


def test_a_row_with_another_number_is_given_up_and_counted(channel: MakeChannel) -> None:
    """A row in the making or overtaken is never returned."""
    made = channel(capacity=8)
    lane = made.claim()
    for stamp in range(8):
        add(lane, stamp)
    rows = SharedArray(made.name, "ring0", made.records.record, 8)
    rows.words[3, 0] = 0
    reader = made.reader()
    assert 4 not in reader.sample(8)["sequence"]
    assert reader.torn == 1
    rows.words[3, 0] = 12
    assert len(reader.sample(8)) == 7
    assert reader.torn == 2


def test_verification_finds_a_damaged_row(channel: MakeChannel) -> None:
    """With checksums a flipped bit in a row with a good number is noticed."""
    made = channel(capacity=8)
    lane = made.claim()
    for stamp in range(8):
        add(lane, stamp)
    SharedArray(made.name, "ring0", made.records.record, 8).words[3, 6] ^= 1 << 17
    assert len(made.reader(verify=True).sample(8)) == 7
    assert len(made.reader(verify=False).sample(8)) == 8


def test_a_sample_goes_straight_into_preallocated_tensors(channel: MakeChannel) -> None:
    """Every field is a view of the gathered words; nothing is copied per record."""
    made = channel()
    lane = made.claim()
    for stamp in range(40):
        add(lane, stamp)
    room = BatchRoom(made.records, 16)
    count = made.reader().sample_into(room, 16)
    assert count == 16
    rows, tensors = room.rows[:count], RecordTensors(made.records, room.tensor[:count])
    for ours, theirs in (
        (tensors.observations, rows["observation"]),
        (tensors.actions, rows["action"]),
        (tensors.expected, rows["expected_reward"]),
        (tensors.actual, rows["actual_reward"]),
        (tensors.probabilities, rows["probability"]),
        (tensors.confidences, rows["confidence"]),
        (tensors.versions, rows["version"].astype(np.int64)),
        (tensors.sent, rows["decision"] == SEND),
    ):
        assert np.array_equal(ours.numpy(), theirs)
    assert tensors.observations.untyped_storage().data_ptr() == room.tensor.untyped_storage().data_ptr()
    assert made.reader().sample_into(room, 100) == 16


def test_a_mixed_ring_is_sampled_by_share(channel: MakeChannel) -> None:
    """The stratified strategy keeps the share of WAIT, and fills up when one kind is short."""
    from tandem.shared.experiences.strategies import Stratified

    made = channel(capacity=64)
    lane = made.claim()
    rows = np.zeros(64, made.records.record)
    for place in range(64):
        body = payload(made.records, lane._writer.next_ticket(), place, value_of(place))
        rows[place] = np.frombuffer(bytes(16) + body, made.records.record)[0]
    rows["decision"] = np.where(np.arange(64) < 60, WAIT, SEND)
    lane._writer.append_many(rows)
    reader = made.reader()
    reader.strategy = Stratified(0.5)
    drawn = reader.sample(8)["decision"]
    assert (np.count_nonzero(drawn == WAIT), np.count_nonzero(drawn == SEND)) == (4, 4)
    drawn = reader.sample(20)["decision"]
    assert (np.count_nonzero(drawn == WAIT), np.count_nonzero(drawn == SEND)) == (16, 4)


def test_policy_lag_is_bounded(channel: MakeChannel) -> None:
    """Records decided by versions too far back are not drawn."""
    from tandem.shared.experiences.strategies import Uniform

    made = channel()
    lane = made.claim()
    for stamp in range(30):
        add(lane, stamp)
    made.control.set("version", 30)
    reader = made.reader()
    reader.strategy = Uniform(max_lag=5)
    assert sorted(reader.sample(64)["version"].tolist()) == [25, 26, 27, 28, 29]
    reader.strategy = Uniform(max_lag=5, with_repetition=True)
    assert len(reader.sample(64)) == 64


def test_recency_prefers_the_new(channel: MakeChannel) -> None:
    """The newer half is drawn far more often than the older half; nothing twice in a batch."""
    from tandem.shared.experiences.strategies import Recency

    made = channel()
    lane = made.claim()
    for stamp in range(64):
        add(lane, stamp)
    made.control.set("version", 64)
    reader = made.reader()
    reader.strategy = Recency(half_life=8.0)
    newer = total = 0
    for _ in range(200):
        versions = reader.sample(4)["version"]
        assert len(set(versions.tolist())) == 4
        newer += int(np.count_nonzero(versions >= 32))
        total += 4
    assert newer > 0.85 * total


def test_priorities_follow_the_last_loss(channel: MakeChannel) -> None:
    """A record with a large loss comes up far more often than the others."""
    from tandem.shared.experiences.strategies import Prioritized

    made = channel()
    lane = made.claim()
    for stamp in range(32):
        add(lane, stamp)
    reader = made.reader()
    strategy = reader.strategy = Prioritized()
    rows = reader.sample(32)
    strategy.update(reader, rows, np.where(rows["version"] == 7, 10.0, 0.0).astype(np.float32))
    hits = sum(7 in reader.sample(2)["version"] for _ in range(200))
    assert hits > 120


@pytest.mark.parametrize("head", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_count_that_makes_no_sense_hides_no_other_lane(channel: MakeChannel, head: int) -> None:
    """Somebody wrote into the counters of a lane that nobody owns: the others are sampled, after a reset too."""
    made = channel(capacity=16, lanes=2)
    lane = made.claim()
    for stamp in range(20):
        add(lane, stamp)
    made.control.set("lane.1.head", head)
    reader = made.reader()
    assert reader.size() == 16
    assert len(reader.sample(8)) == 8
    assert len(reader.recent(8)) == 8
    made.control.set("first_version", 10)
    rows = reader.sample(8)
    assert len(rows) == 8
    assert rows["version"].min() >= 10
