"""A reader's version never goes back by itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import pytest
from channel_kit import fill, is_whole
from mutants import SUBSCRIBERS
from proof import STEPS, Planted, at_line, figure, raise_planted, size
from tandem.shared.weights.subscriber import Look

MakeChannel = Callable[..., Any]


def publish_up_to_a_crash(made: Any, versions: int, line: int, steps: int) -> bool:
    """Publish `versions` whole versions and one more that stops before its `line`-th line; False if there is none."""
    publisher = made.publisher()
    for _ in range(versions):
        made.publish(publisher, publisher.version + steps)
    version = publisher.version + steps
    room = fill(made.room(), version)
    reached = [True]

    def crash() -> None:
        with contextlib.suppress(Planted):
            reached[0] = at_line(lambda: publisher.publish(room, version), line, raise_planted)

    # On a thread of its own: the reader's thread is in the middle of being traced.
    thread = threading.Thread(target=crash)
    thread.start()
    thread.join()
    return reached[0]


class Watch:
    """A reader that notes what it takes."""

    def __init__(self, made: Any, subscriber: str) -> None:
        self.reader = made.subscriber(SUBSCRIBERS[subscriber])
        self.room = made.room()
        self.taken: list[tuple[int, bool]] = []

    def look(self) -> None:
        if self.reader.refresh(self.room) is Look.TAKEN:
            self.taken.append((self.reader.version, is_whole(self.room, self.reader.version)))

    def went_back(self) -> bool:
        return any(second[0] < first[0] for first, second in pairwise(self.taken))

    def torn(self) -> bool:
        return not all(whole for _, whole in self.taken)


def interleave(
    made: Any, subscriber: str, versions: int, lines: tuple[int, int], steps: int
) -> tuple[Watch, bool, bool]:
    """One interleaving: the reader, whether it had that many lines, and whether the publisher had."""
    made.publish(made.publisher(), made.control.get("version") + steps)
    watch, crashed = Watch(made, subscriber), [True]

    def interrupt() -> None:
        crashed[0] = publish_up_to_a_crash(made, versions, lines[1], steps)

    reached = at_line(watch.look, lines[0], interrupt)
    watch.look()
    watch.look()
    return watch, reached, crashed[0]


def interleavings(channel: MakeChannel, subscriber: str, enough: int = 10**9, steps: int = 1) -> tuple[int, int, int]:
    """Preempt a reader before each line of `refresh` by a publisher that publishes some versions and stops in one.

    Returns the number of interleavings, how often the version went back and how often weights were torn; ends early
    when it went back `enough` times.
    """
    made = channel(slots=4, weights_bytes=64)
    trials = back = torn = 0
    for versions in (0, 3, 4):
        for publisher_line in count(1):
            stopped = True
            for reader_line in count(1):
                watch, reached, crashed = interleave(made, subscriber, versions, (reader_line, publisher_line), steps)
                trials += 1
                back += watch.went_back()
                torn += watch.torn()
                stopped = stopped and crashed
                if not reached or back >= enough:
                    break
            if not stopped or back >= enough:
                break
    return trials, back, torn


@pytest.mark.parametrize("steps", STEPS)
def test_promise_02_versions_never_go_back(channel: MakeChannel, steps: int) -> None:
    """Whatever a publisher does between two lines of a reader, up to dying, the reader's versions rise."""
    trials, back, torn = interleavings(channel, "Subscriber", steps=steps)
    assert trials > 100
    assert back == torn == 0
    figure(2, f"0 of {trials:,} enumerated interleavings, {steps} at once")


def test_a_lenient_reader_goes_back(channel: MakeChannel) -> None:
    """The same enumeration finds the fault of a reader that takes any even slot."""
    _, back, _ = interleavings(channel, "Lenient", enough=1)
    assert back > 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("steps", STEPS)
def test_promise_02_at_full_rate(channel: MakeChannel, nursery: Any, steps: int) -> None:
    """With a publisher at full rate in another process, versions rise from one take to the next."""
    made = channel(weights_bytes=4096)
    writer = nursery.start("publish", name=made.name, steps=steps).ready()
    found = nursery.run("read_weights", name=made.name, subscriber="Subscriber", reads=size(3_000, 1_000_000))
    writer.stop()
    assert found["older"] == found["torn"] == 0
    figure(2, f"{found['older']} in {found['taken']:,} reads at full rate, {steps} at once")
