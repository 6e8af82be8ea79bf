"""The processes of the proofs. Run as a program this is the nursery: it forks the functions below on demand."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from channel_kit import (
    add,
    attach_channel,
    balance,
    batch_of,
    fill,
    is_whole,
    key_of,
    make_channel,
    value_of,
    wait_for_reward,
    wrong_rows,
)
from mutants import COUNTER_WRITERS, LANES, PUBLISHERS, READERS, SUBSCRIBERS
from proof import Planted
from tandem.shared.errors import TandemError
from tandem.shared.weights.subscriber import Look

_folder = Path(".")
_stop: list[int] = []


def ready() -> None:
    """Tell the proof that this process is where it should be."""
    (_folder / "ready").touch()


def on_stop(number: int, _: Any) -> None:
    _stop.append(number)


def fresh() -> None:
    """Forget what belongs to the parent."""
    _stop.clear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_stop)


# Publishing


def publish(name: str, publisher: str = "Publisher", interval: float = 0.0, steps: int = 1) -> int:
    """Publish self-verifying weights, each `steps` versions higher, until told to stop; the last version."""
    made = attach_channel(name)
    end = made.publisher(PUBLISHERS[publisher])
    room = made.room()
    version = end.version
    next_at = time.monotonic()
    ready()
    while not _stop:
        version += steps
        end.publish(fill(room, version), version)
        if interval:
            next_at = max(next_at + interval, time.monotonic())
            time.sleep(max(0.0, next_at - time.monotonic()))
    return version


def publish_telling(name: str) -> int:
    """Publish versions of an instance whose first 64 weights tell the version, about a thousand a second."""
    made = attach_channel(name)
    end, subscriber, room = made.publisher(), made.subscriber(), made.room()
    subscriber.refresh(room)
    told = next(spec for spec in made.weights.specs if spec.name == "told")
    words = room[told.offset : told.offset + told.length].view(torch.float32)
    version = end.version
    ready()
    while not _stop:
        version += 1
        words.fill_((version % 997) / 400)
        end.publish(room, version)
        time.sleep(0.0005)
    return version


def read_weights(
    name: str, subscriber: str, reads: int, verify: bool = False, seconds: float = 3000, enough: int = 10**9
) -> dict[str, int]:
    """Take versions until `reads` were taken: how many were torn, older, given up, and the longest row of misses.

    Ends early when `enough` went wrong.
    """
    made = attach_channel(name)
    end = made.subscriber(SUBSCRIBERS[subscriber], verify)
    room = made.room()
    taken = torn = older = missed = row = longest = last = looks = 0
    deadline = time.monotonic() + seconds
    ready()
    while taken < reads and torn + older < enough and not _stop and time.monotonic() < deadline:
        got = end.refresh(room)
        if got is Look.NOTHING_NEW:
            continue
        looks += 1
        if got is Look.BUSY:
            missed += 1
            row += 1
            longest = max(longest, row)
            continue
        row = 0
        taken += 1
        torn += not is_whole(room, end.version)
        older += end.version < last
        last = end.version
    return {"taken": taken, "torn": torn, "older": older, "missed": missed, "longest": longest, "looks": looks}


def kill_publishers(name: str, publisher: str, kills: int, seed: int, steps: int = 1) -> dict[str, int]:
    """Fork publishers, kill each at a random moment, and look what a reader finds."""
    made = attach_channel(name)
    rng = np.random.default_rng(seed)
    room = made.room()
    unreadable = torn = back = caught = last = 0
    for _ in range(kills):
        pid = os.fork()
        if pid == 0:
            fresh()
            publish(name, publisher, steps=steps)
            os._exit(0)
        time.sleep(float(rng.uniform(0.002, 0.01)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reader = made.subscriber()
        if reader.refresh(room) is not Look.TAKEN:
            unreadable += 1
        elif not is_whole(room, reader.version):
            torn += 1
        version = made.control.get("version")
        back += version < last
        last = version
        caught += any(made.control.get(f"slot.{j}.sequence") % 2 for j in range(made.control.get("slots")))
    return {"kills": kills, "unreadable": unreadable, "torn": torn, "back": back, "caught": caught, "version": last}


def publish_under_signals(name: str, publisher: str, signals: int, seed: int) -> dict[str, int]:
    """Publish while signals arrive whose handler raises, and look after each what a reader finds."""
    made = attach_channel(name)
    rng = np.random.default_rng(seed)
    end = made.publisher(PUBLISHERS[publisher])
    room, mine = made.room(), made.room()

    def handler(*_: Any) -> None:
        raise Planted

    signal.signal(signal.SIGALRM, handler)
    bad = 0
    for _ in range(signals):
        try:
            signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(0.0002, 0.002)))
            while True:
                version = end.version + 1
                end.publish(fill(mine, version), version)
        except Planted:
            pass
        reader = made.subscriber()
        if reader.refresh(room) is not Look.TAKEN or not is_whole(room, reader.version):
            bad += 1
    return {"signals": signals, "bad": bad, "version": end.version}


# Rings


def write_rows(name: str, lane: str = "Lane", count: int = 0, batch: int = 1) -> dict[str, int]:
    """Append self-verifying records at full rate until told to stop, or `count` of them."""
    made = attach_channel(name)
    end = made.claim(LANES[lane])
    ready()
    written = 0
    while not _stop and (not count or written < count):
        if batch == 1:
            written += 1
            add(end, written)
        else:
            with end.hold() as writer:
                writer.append_many(batch_of(end, written + 1, batch))
            written += batch
    return {"written": written, "head": end.get("head")}


def sample_rows(
    name: str,
    reader: str,
    rows: int,
    count: int = 32,
    verify: bool = False,
    seconds: float = 3000,
    enough: int = 10**9,
) -> dict[str, int]:
    """Sample until `rows` records came, or `enough` were wrong: how many did not agree with themselves."""
    made = attach_channel(name)
    end = READERS[reader](made.control, made.records, 1, verify)
    seen = wrong = repeated = 0
    deadline = time.monotonic() + seconds
    ready()
    while seen < rows and wrong < enough and not _stop and time.monotonic() < deadline:
        got = end.sample(count)
        seen += len(got)
        wrong += wrong_rows(got)
        repeated += len(got) - len(np.unique(got["sequence"]))
    return {"seen": seen, "wrong": wrong, "repeated": repeated, "torn": end.torn, "sampled": end.sampled}


def hold_lane(name: str) -> int:
    """Own a lane until told to stop; its index."""
    lane = attach_channel(name).claim()
    ready()
    while not _stop:
        time.sleep(0.005)
    return lane.index


def write_after_stop(name: str, lane: str = "Lane") -> dict[str, Any]:
    """Own a lane, lose its flock (all descriptors closed, as programs that go into the background do), stop, and go on.

    How many writes were done and how many refused after SIGCONT.
    """
    made = attach_channel(name)
    end = made.claim(LANES[lane])
    wait_for_reward(end, "a", 1)
    os.closerange(3, 200)
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)
    done: dict[str, Any] = {"written": 0, "refused": 0}
    for stamp in range(2, 202):
        try:
            add(end, stamp)
            wait_for_reward(end, "b", stamp)
            with end.hold() as writer:
                writer.reward(key_of("a"), 1.0)
            done["written"] += 1
        except TandemError:
            done["refused"] += 1
    return done


def publish_after_stop(name: str, publisher: str = "Publisher") -> dict[str, Any]:
    """Train, lose the flock, stop, and publish on; how many versions were published and refused after SIGCONT."""
    from tandem.trainer_proc.__main__ import take_trainer_lock

    made = attach_channel(name)
    take_trainer_lock(name)
    end, room = made.publisher(PUBLISHERS[publisher]), made.room()
    end.publish(fill(room, 1), 1)
    os.closerange(3, 200)
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)
    done: dict[str, Any] = {"written": 0, "refused": 0}
    for version in range(1001, 1201):
        try:
            end.publish(fill(room, version), version)
            done["written"] += 1
        except TandemError:
            done["refused"] += 1
    return done


def decide_and_reward(name: str, lane: str, worker: int, journal: str, seed: int) -> None:
    """Decide under keys that are shared with the other workers, and reward whatever waits, wherever, with retries.

    A reward's value names it: few are the same.
    """

    def reward(end: Any, key: bytes, number: int, choice: float) -> Iterator[str]:
        value = float(seed * 4096 + number % 4096)
        for _ in range(2 if choice < 0.5 else 1):
            with end.hold():
                taken = end._writer.reward(key, value) is not False
            yield f"{value}" if taken else f"refused {value}"

    _work_on_shared_keys(name, lane, journal, seed, 12, 0.4, reward)


def decide_and_add(name: str, lane: str, journal: str, seed: int) -> None:
    """Decide under keys that are shared with the other workers, and add 1 to what a decision has earned, wherever."""

    def reward(end: Any, key: bytes, number: int, choice: float) -> Iterator[str]:
        with end.hold() as writer:
            give = writer.reward if choice < 0.4 else writer.add_reward
            taken = give(key, 1.0) is not False
        yield "taken" if taken else "refused"

    _work_on_shared_keys(name, lane, journal, seed, 6, 0.3, reward)


# Many parameters: what one worker is told.
def _work_on_shared_keys(
    name: str, lane: str, journal: str, seed: int, keys: int, decides: float, reward: Callable[..., Iterator[str]]
) -> None:
    """Until told to stop: with the chance `decides` a decision under one of the keys, else rewards, as `reward(lane,
    key, number, choice)` gives them. Each answer, which it yields, is journalled right after it came.
    """
    made = attach_channel(name)
    end = made.claim(LANES[lane])
    rng = np.random.default_rng(seed)
    ready()
    with open(journal, "a", encoding="utf-8") as file:
        number = 0
        while not _stop:
            number += 1
            key, choice = f"k{rng.integers(keys)}", rng.random()
            if choice < decides:
                wait_for_reward(end, key, end.get("tickets") + 1)
            else:
                for answer in reward(end, key_of(key), number, choice):
                    file.write(f"{answer}\n")
                    file.flush()
            if number % 5 == 0:
                with end.hold():
                    end._writer.collect()
    end.release()


def hold_trainer_lock(name: str) -> None:
    """Be the instance's trainer until told to stop."""
    from tandem.trainer_proc.__main__ import take_trainer_lock

    take_trainer_lock(name)
    ready()
    while not _stop:
        time.sleep(0.005)


def hold_instance_lock(name: str) -> None:
    """Be the instance's supervisor until told to stop."""
    from tandem.supervisor.lock import InstanceLock

    with InstanceLock(name):
        ready()
        while not _stop:
            time.sleep(0.005)


def threads_append(name: str, lane: str, threads: int, each: int) -> dict[str, int]:
    """Several threads append through one lane."""
    made = attach_channel(name)
    end = made.claim(LANES[lane])
    sys.setswitchinterval(1e-6)

    def work(worker: int) -> None:
        for number in range(each):
            add(end, worker * each + number)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = made.reader(verify=True).recent(threads * each)
    return {"head": end.get("head"), "whole": len(rows), "wrong": wrong_rows(rows), "decided": end.get("decided")}


def kill_writers(name: str, lane: str, kills: int, seed: int) -> dict[str, int]:
    """Fork writers, kill each at a random moment, adopt their lane and look what is there."""
    made = attach_channel(name)
    rng = np.random.default_rng(seed)
    lost = torn = missing = unbalanced = previous = 0
    for _ in range(kills):
        head, deadline = made.control.get("lane.0.head"), time.monotonic() + 10.0
        pid = os.fork()
        if pid == 0:
            fresh()
            write_mixed(name, lane)
            os._exit(0)
        # On a busy machine the writer may take long to begin: a kill before that would find nothing.
        while made.control.get("lane.0.head") == head and time.monotonic() < deadline:
            time.sleep(0.0002)
        time.sleep(float(rng.uniform(0.0, 0.006)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        end = made.claim()
        now = end.get("lost")
        lost = max(lost, now - previous)
        previous = now
        reader = made.reader()
        rows = reader.recent(10**9)
        torn += wrong_rows(rows)
        # The oldest row is gone if the next one was being written over it.
        missing += reader.size() - len(rows) > 1
        unbalanced += balance(made.control) != 0
        end.release()
    head = made.control.get("lane.0.head")
    return {"lost": lost, "torn": torn, "missing": missing, "unbalanced": unbalanced, "head": head}


def write_mixed(name: str, lane: str) -> None:
    """Append, defer, complete, supersede and drop until told to stop."""
    made = attach_channel(name)
    end = made.claim(LANES[lane])
    stamp = end.get("tickets")
    ready()
    while not _stop:
        stamp += 1
        mixed_step(end, stamp)


def mixed_step(end: Any, stamp: int) -> None:
    """One of what a server does."""
    key = f"k{stamp % 5}"
    if stamp % 3 == 0:
        add(end, stamp)
    elif stamp % 3 == 1:
        wait_for_reward(end, key, stamp)
    elif len(end.pending):
        oldest = end.pending.keys()[0]
        entry = end.pending.entry(oldest)
        with end.hold():
            end._writer.complete(oldest, value_of(int(entry["version"])))
    if stamp % 17 == 0:
        with end.hold():
            end._writer.drop(key_of(key))


# Creation and counters


def create_and_die(name: str, stay: bool = False, **settings: Any) -> None:
    """Create a channel, fill it, and die by SIGKILL with everything open."""
    made = make_channel(name, **settings)
    made.publish(made.publisher(), 1)
    lane = made.claim()
    for stamp in range(10):
        add(lane, stamp)
    wait_for_reward(lane, "a", 11)
    ready()
    while stay:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def flip(name: str, writer: str, field: str = "version") -> None:
    """Store two patterns in one field, in turn, until told to stop."""
    control = attach_channel(name).control
    store = COUNTER_WRITERS[writer]
    first, second = 0x0101010101010101, 0xFEFEFEFEFEFEFEFE
    store(control, field, first)
    ready()
    while not _stop:
        for _ in range(1000):
            store(control, field, first)
            store(control, field, second)


# The nursery


def run(target: str, arguments: dict[str, Any], folder: str) -> None:
    """Run one of the functions above in this forked process, and end it."""
    global _folder
    _folder = Path(folder)
    fresh()
    errors = os.open(_folder / "stderr", os.O_WRONLY | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for number, source in ((0, null), (1, null), (2, errors)):
        os.dup2(source, number)
    status = 1
    try:
        import crash_points

        result = {**globals(), **vars(crash_points)}[target](**arguments)
        (_folder / "result").write_text(json.dumps(result), encoding="utf-8")
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    os._exit(status)


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.modules["children"] = sys.modules["__main__"]
    import crash_points

    assert crash_points
    for line in sys.stdin:
        question, *rest = json.loads(line)
        answer: Any = None
        if question == "start":
            pid = os.fork()
            if pid == 0:
                run(*rest)
            answer = pid
        elif question == "poll":
            pid, status = os.waitpid(rest[0], os.WNOHANG)
            answer = None if pid == 0 else os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
