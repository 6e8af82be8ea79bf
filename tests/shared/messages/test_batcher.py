"""Requests that arrive together are decided together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tandem.shared.messages.batcher import Batcher, Request


class Recorder:
    """Decides by returning the key, and keeps the sizes of the batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """The keys; an observation that is an exception is returned instead."""
        self.sizes.append(len(requests))
        return [observation if isinstance(observation, Exception) else key for key, observation, _ in requests]


def gather(batcher: Batcher, requests: Sequence[Request]) -> list[Any]:
    """Ask for all of them in one turn of an event loop."""

    async def run() -> list[Any]:
        return await asyncio.gather(*(batcher.decide(*request) for request in requests), return_exceptions=True)

    return asyncio.run(run())


def test_requests_of_one_turn_share_a_pass() -> None:
    """Ten requests at once are one batch, and each gets its own answer."""
    recorder = Recorder()
    batcher = Batcher(recorder)
    batcher.callers = 10
    assert gather(batcher, [(f"k{i}", None, "") for i in range(10)]) == [f"k{i}" for i in range(10)]
    assert recorder.sizes == [10]


def test_a_batch_is_bounded() -> None:
    """More than `most` are decided in several passes, in their order, and none is left out."""
    recorder = Recorder()
    batcher = Batcher(recorder, most=4)
    batcher.callers = 10
    assert gather(batcher, [(f"k{i}", None, "") for i in range(10)]) == [f"k{i}" for i in range(10)]
    assert recorder.sizes == [4, 4, 2]


def test_a_single_caller_does_not_wait_for_a_turn() -> None:
    """With one caller the decision is made within the call."""
    recorder = Recorder()
    batcher = Batcher(recorder)
    batcher.callers = 1
    call = batcher.decide("k", None)
    with pytest.raises(StopIteration) as done:
        call.send(None)
    assert done.value.value == "k"


@pytest.mark.parametrize("callers", [1, 3])
def test_a_failure_belongs_to_its_request(callers: int) -> None:
    """One request's exception is raised to its caller only."""
    batcher = Batcher(Recorder())
    batcher.callers = callers
    bad = ValueError("bad")
    assert gather(batcher, [("a", None, ""), ("b", bad, ""), ("c", None, "")]) == ["a", bad, "c"]


def test_if_all_fails_every_caller_hears_of_it() -> None:
    """An exception of the pass itself reaches each waiting caller."""
    error = RuntimeError("no policy")

    def fail(requests: Sequence[Request]) -> list[Any]:
        raise error

    batcher = Batcher(fail)
    batcher.callers = 2
    assert gather(batcher, [("a", None, ""), ("b", None, "")]) == [error, error]


def test_a_caller_that_gave_up_is_not_decided_for() -> None:
    """A request that is cancelled before its turn leaves no decision, and the others are answered."""
    recorder = Recorder()
    given_up: list[str] = []

    async def run() -> list[Any]:
        batcher = Batcher(recorder, undelivered=given_up.append)
        batcher.callers = 2
        first, second = (asyncio.ensure_future(batcher.decide(key, None)) for key in "ab")
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(first, second, return_exceptions=True)

    cancelled, answer = asyncio.run(run())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert answer == "b"
    assert recorder.sizes == [1]
    assert given_up == []


def test_a_decision_that_reaches_nobody_is_given_up() -> None:
    """A caller that is cancelled between the decision and its answer has it named as undelivered."""
    given_up: list[str] = []
    tasks: list[asyncio.Future[Any]] = []

    def decide_and_cancel(requests: Sequence[Request]) -> list[Any]:
        asyncio.get_running_loop().call_soon(tasks[0].cancel)
        return [key for key, _, _ in requests]

    async def run() -> list[Any]:
        batcher = Batcher(decide_and_cancel, undelivered=given_up.append)
        batcher.callers = 2
        tasks.extend(asyncio.ensure_future(batcher.decide(key, None)) for key in "ab")
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(run())
    assert isinstance(answers[0], asyncio.CancelledError)
    assert given_up == ["a"]
    assert answers[1] == "b"


def test_a_pass_that_fails_is_repeated_one_by_one() -> None:
    """Only the request at fault fails; the others get their decisions."""

    def fragile(requests: Sequence[Request]) -> list[Any]:
        if any(key == "bad" for key, _, _ in requests):
            raise FloatingPointError("overflow")
        return [key for key, _, _ in requests]

    batcher = Batcher(fragile)
    batcher.callers = 3
    first, bad, last = gather(batcher, [("a", None, ""), ("bad", None, ""), ("c", None, "")])
    assert (first, last) == ("a", "c")
    assert isinstance(bad, FloatingPointError)


@pytest.mark.parametrize("answer", [[], ["one", "two", "three"]], ids=len)
def test_nobody_waits_for_ever_for_a_decision_that_was_not_made(answer: list[Any]) -> None:
    """An engine that returns too few or too many decisions is an error for each caller."""
    batcher = Batcher(lambda requests: answer)
    batcher.callers = 2
    assert all(isinstance(found, RuntimeError) for found in gather(batcher, [("a", None, ""), ("b", None, "")]))


def test_an_interrupt_leaves_nobody_waiting() -> None:
    """What ends the program passes through, and those who asked are told; the next requests are answered."""
    interrupts: list[BaseException] = [KeyboardInterrupt()]

    def decide(requests: Sequence[Request]) -> list[Any]:
        if interrupts:
            raise interrupts.pop()
        return [key for key, _, _ in requests]

    batcher = Batcher(decide)
    batcher.callers = 2
    loop = asyncio.new_event_loop()
    asked = [loop.create_task(batcher.decide(key, None)) for key in "ab"]
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(asked))
        loop.run_until_complete(asyncio.wait(asked, timeout=20))
        assert all("KeyboardInterrupt" in str(task.exception()) for task in asked)
        assert loop.run_until_complete(batcher.decide("c", None)) == "c"
    finally:
        loop.close()
