"""What the shared-memory channel costs: adding, sampling, publishing, noticing that nothing is new.

`python benchmarks/channel.py [--json] [--rounds N]`. Every figure and its floor are measured in turn within one run,
for several rounds; the median over the rounds is reported, and ratios are taken within a round. A process of class
SCHED_IDLE on each core keeps it from halting. The floor of an add is struct.pack_into of the same fields into memory
without any protocol; of a sample of 4,096 numpy's take of as many rows as words; of a sample of 32 a structured fancy
index; of publish-to-live two copies by memcpy.

`publish_to_live_us` is a publish and a reader's taking of it, for models of so many float32; `memcpy_us` is one copy of
as many bytes. `refresh_unchanged_ns` is what a decision pays to learn that no version is new, above an empty loop.
`torn` counts rows and weights that did not agree with themselves while two processes raced; `retries_per_read` is for
weights of 1 MiB published every millisecond; `adds_per_s` is one writer's rate with a sampler at full rate beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from _kit import awake_cores, machine
from numpy.typing import NDArray
from tandem.inference_proc.live_model import LiveModel
from tandem.shared.experiences.batch import BatchRoom, RecordTensors
from tandem.shared.experiences.forwarded_rewards import CELL, cell_rows
from tandem.shared.experiences.lane import Lane
from tandem.shared.experiences.records import KEY_BYTES, SEND, RecordLayout
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.memory.arrays import create_array
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import remove_instance
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.layout import WeightsLayout
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.slots import Slots, create_slots
from tandem.shared.weights.subscriber import Look, Subscriber

RECORDS = RecordLayout(28, 2, 4, 0)
CAPACITY = 20_000
FLOAT32S = (15_000, 1_000_000, 25_000_000)
IN_PLACE_BYTES = 16_000_000
"""The default of `weights.in_place_bytes`."""
STAMPS = 1_000_003


def model_of(float32s: int) -> torch.nn.Module:
    """A model with about so many parameters."""
    if float32s < 100_000:
        return torch.nn.Sequential(torch.nn.Linear(28, 128), torch.nn.ReLU(), torch.nn.Linear(128, 88))
    side = math.isqrt(float32s)
    return torch.nn.Linear(side, side, bias=False)


@contextmanager
def channel(part: str, weights: WeightsLayout) -> Iterator[Control]:
    """A channel of its own: one lane, four slots, version 0 published. Removed afterwards."""
    name = f"channel-{part}-{os.getpid()}"
    header = len(weights.header())
    control = Control.create(
        name,
        {
            "slots": 4,
            "lanes": 1,
            "capacity": CAPACITY,
            "record_bytes": RECORDS.record.itemsize,
            "pending_capacity": 64,
            "pending_bytes": RECORDS.pending.itemsize,
            "weights_bytes": header + weights.data_bytes,
            "weights_offset": header,
        },
        {"tensors": weights.schema()},
    )
    try:
        create_array(name, "ring0", RECORDS.record, CAPACITY)
        create_array(name, "pending0", RECORDS.pending, 64)
        create_array(name, "mail0", CELL, cell_rows(1, 64))
        create_slots(control, weights, 4)
        Publisher(Slots(control, weights)).publish(torch.zeros(weights.data_bytes, dtype=torch.uint8), 0)
        control.finish()
        yield control
    finally:
        remove_instance(name)
        control.close()


def timed(call: Callable[[], Any], count: int) -> NDArray[np.float64]:
    """Microseconds of each of `count` calls, less what taking the time costs."""
    now, durations = time.perf_counter_ns, np.empty(count)
    for number in range(count):
        start = now()
        call()
        durations[number] = now() - start
    empty = np.empty(1000)
    for number in range(1000):
        start = now()
        empty[number] = now() - start
    return (durations - np.median(empty)) / 1e3


def per_call(call: Callable[[], Any], count: int) -> float:
    """Microseconds of one of `count` calls on average."""
    start = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - start) / count / 1e3


class Adding:
    """Adds of one record, the floor of it, and batches."""

    def __init__(self, control: Control) -> None:
        self.lane = Lane.claim(control, RECORDS)
        self.observation = np.arange(28, dtype=np.float32)
        self.parts = (0.1, 0.2, 0.3, 0.4)
        body = f"<QQQQd4fI2i112s4f{KEY_BYTES}s"
        self.floor_struct = struct.Struct(body)
        self.floor_memory = bytearray(CAPACITY * RECORDS.record.itemsize)
        self.number = 0
        self.batch = np.zeros(256, RECORDS.record)

    def add(self) -> None:
        """One record, complete: the lock, its ticket, its bytes, the row protocol and the counters."""
        lane, now = self.lane, 1.5e9
        writer = lane.acquire()
        if writer is not None:
            ticket = writer.next_ticket()
            writer.append(
                RECORDS.pack(
                    ticket, 7, now, 0.5, 0.25, 0.1, 0.2, SEND, (3, 1), self.observation, self.parts, b"territory_0_0"
                )
            )
            lane.unlock()

    def floor(self) -> None:
        """The same fields by struct.pack_into, without any protocol."""
        number = self.number = self.number + 1
        self.floor_struct.pack_into(
            self.floor_memory,
            (number - 1) % CAPACITY * RECORDS.record.itemsize,
            number,
            0,
            number,
            7,
            1.5e9,
            0.5,
            0.25,
            0.1,
            0.2,
            SEND,
            3,
            1,
            self.observation.tobytes(),
            *self.parts,
            b"territory_0_0",
        )

    def add_batch(self) -> None:
        """256 records that were decided together."""
        writer = self.lane.acquire()
        if writer is not None:
            writer.count("decided", len(self.batch))
            writer.append_many(self.batch)
            self.lane.unlock()


class Sampling:
    """Samples as training tensors, and their floors on private memory."""

    def __init__(self, control: Control) -> None:
        self.reader = ReplayReader(control, RECORDS, seed=1)
        self.rooms = {count: BatchRoom(RECORDS, count) for count in (32, 4096)}
        self.rng = np.random.default_rng(1)
        self.words = np.zeros((CAPACITY, RECORDS.record.itemsize // 8), np.int64)
        self.rows = self.words.view(RECORDS.record).reshape(-1)

    def sample(self, count: int) -> RecordTensors:
        """Validated, and every field a tensor."""
        room = self.rooms[count]
        return RecordTensors(RECORDS, room.tensor[: self.reader.sample_into(room, count)])

    def gather(self, count: int) -> None:
        """Validated, into preallocated memory; the tensors that view it are not made anew."""
        self.reader.sample_into(self.rooms[count], count)

    def take(self, count: int) -> None:
        """numpy take of as many rows as plain words."""
        self.words.take(self.rng.integers(CAPACITY, size=count), axis=0)

    def fancy(self, count: int) -> None:
        """A structured array indexed by as many numbers."""
        self.rows[self.rng.integers(CAPACITY, size=count)]


class Publishing:
    """A publish and the taking of it, for one size of model."""

    def __init__(self, control: Control, flat: FlatModel) -> None:
        slots = Slots(control, flat.layout)
        self.publisher = Publisher(slots)
        self.source = flat.flat.clone()
        self.live = LiveModel(flat, slots, in_place=flat.layout.data_bytes >= IN_PLACE_BYTES)
        self.live.refresh()
        self.target = self.source.numpy().copy()
        self.reader_us: list[float] = []

    def publish_to_live(self) -> float:
        """Microseconds from the start of a publish until the reader's model has it."""
        start = time.perf_counter_ns()
        self.publisher.publish(self.source, self.publisher.version + 1)
        middle = time.perf_counter_ns()
        taken = self.live.refresh()
        end = time.perf_counter_ns()
        assert taken is Look.TAKEN
        self.reader_us.append((end - middle) / 1e3)
        return (end - start) / 1e3

    def memcpy(self) -> float:
        """Microseconds of one copy of as many bytes."""
        start = time.perf_counter_ns()
        np.copyto(self.target, self.source.numpy())
        return (time.perf_counter_ns() - start) / 1e3


# Two processes


def stamp_of(payload_of: int) -> bytes:
    """The payload of a record whose fields follow from its stamp."""
    value = float(payload_of % STAMPS)
    return RECORDS.pack(
        payload_of, payload_of, 1.5e9, value, value, value, value, SEND, (1, 1), np.full(28, value, np.float32),
        (value,) * 4, b"key",
    )  # fmt: skip


def child(role: str, name: str, size: int) -> None:
    """What a second process does until it gets SIGTERM; its figures go to standard output as JSON."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    control = Control.attach(name, timeout=30)
    figures: dict[str, Any] = {}
    if role == "writer":
        lane = Lane.claim(control, RECORDS)
        payloads = [stamp_of(stamp) for stamp in range(1, 513)]
        print("ready", flush=True)
        started, before = time.perf_counter(), lane.get("head")
        while not stop:
            for payload in payloads:
                writer = lane.acquire()
                if writer is not None:
                    writer.next_ticket()
                    writer.append(payload)
                    lane.unlock()
        figures["adds_per_s"] = (lane.get("head") - before) / (time.perf_counter() - started)
    else:
        weights = FlatModel(model_of(size)).layout
        publisher, flat = Publisher(Slots(control, weights)), torch.zeros(weights.data_bytes, dtype=torch.uint8)
        words, due = flat.numpy().view(np.uint64), time.monotonic()
        print("ready", flush=True)
        while not stop:
            version = publisher.version + 1
            words[:] = version
            publisher.publish(flat, version)
            due = max(due + 0.001, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    print(json.dumps(figures), flush=True)


@contextmanager
def second_process(role: str, name: str, size: int = 0) -> Iterator[Callable[[], dict[str, Any]]]:
    """A child in that role; call what is yielded to end it and get its figures."""
    command = [sys.executable, __file__, "--role", role, "--name", name, "--size", str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found: list[dict[str, Any]] = []

    def finish() -> dict[str, Any]:
        if not found:
            process.terminate()
            found.append(json.loads(process.stdout.readline()))  # type: ignore[union-attr]
        return found[0]

    try:
        assert process.stdout.readline() == "ready\n"
        yield finish
    finally:
        finish()
        process.wait()
        process.stdout.close()


def race_rows(control: Control, seconds: float) -> dict[str, float]:
    """Sample batches of 32 at full rate beside a writer at full rate."""
    reader, room = ReplayReader(control, RECORDS, seed=2), BatchRoom(RECORDS, 32)
    with second_process("writer", control.instance) as finish:
        batches = rows = torn = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            count = reader.sample_into(room, 32)
            got = room.rows[:count]
            batches += 1
            rows += count
            if batches % 8 == 0:  # looking costs as much as sampling
                torn += int(np.count_nonzero(got["observation"] != got["expected_reward"][:, None]))
        samples = batches / (time.perf_counter() - started)
        adds = finish()["adds_per_s"]
    return {"adds_per_s": adds, "samples_per_s": samples, "rows": rows, "torn": torn}


def race_weights(seconds: float) -> dict[str, float]:
    """Take versions of 1 MiB that are published every millisecond."""
    size = 512 * 512
    weights = FlatModel(model_of(size)).layout
    with channel("race", weights) as control, second_process("publisher", control.instance, size):
        subscriber = Subscriber(Slots(control, weights))
        flat = torch.zeros(weights.data_bytes, dtype=torch.uint8)
        words = flat.numpy().view(np.uint64)
        taken = missed = torn = 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            got = subscriber.refresh(flat)
            if got is Look.TAKEN:
                taken += 1
                torn += not bool((words == subscriber.version).all())
            missed += got is Look.BUSY
    return {"reads": taken, "missed": missed, "torn": torn}


def measure(rounds: int) -> tuple[dict[str, Any], list[str]]:
    """The figures, and lines for people with ratios."""
    torch.set_num_threads(1)
    small = FlatModel(model_of(15_000))
    samples: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        samples.setdefault(name, []).append(value)

    with channel("rows", small.layout) as control:
        adding = Adding(control)
        for _ in range(CAPACITY):
            adding.add()
        sampling = Sampling(control)
        live = Publishing(control, small)
        for _ in range(rounds):
            for name, call in (("add", adding.add), ("add_floor", adding.floor)):
                durations = timed(call, 20_000)
                note(name, float(np.percentile(durations, 50)))
                note(name + "_p99", float(np.percentile(durations, 99)))
            note("add_batch", 256e6 / per_call(adding.add_batch, 400))
            for count, repeat in ((32, 2000), (4096, 100)):
                note(f"sample{count}", per_call(lambda count=count: sampling.sample(count), repeat))  # type: ignore[misc]
                note(f"gather{count}", per_call(lambda count=count: sampling.gather(count), repeat))  # type: ignore[misc]
                note(f"take{count}", per_call(lambda count=count: sampling.take(count), repeat))  # type: ignore[misc]
                note(f"fancy{count}", per_call(lambda count=count: sampling.fancy(count), repeat))  # type: ignore[misc]
            loop = per_call(lambda: None, 100_000)
            note("unchanged", 1e3 * (per_call(live.live.refresh, 100_000) - loop))
        adding.lane.release()
        for _ in range(rounds):
            raced = race_rows(control, 1.0)
            for name in ("adds_per_s", "samples_per_s", "rows", "torn"):
                note("race_" + name, raced[name])
    for float32s in FLOAT32S:
        flat = FlatModel(model_of(float32s))
        with channel("weights", flat.layout) as control:
            publishing = Publishing(control, flat)
            repeat = max(3, min(200, 50_000_000 // float32s))
            for _ in range(rounds):
                publishing.reader_us.clear()
                pairs = [(publishing.publish_to_live(), publishing.memcpy()) for _ in range(repeat)]
                note(f"publish_{float32s}", statistics.median(first for first, _ in pairs))
                note(f"memcpy_{float32s}", statistics.median(second for _, second in pairs))
                note(f"reader_{float32s}", statistics.median(publishing.reader_us))
            del publishing
    weights = race_weights(3.0)
    return report(samples, weights), notes(samples, weights)


def report(samples: dict[str, list[float]], weights: dict[str, float]) -> dict[str, Any]:
    """The figures by the names that documents quote."""

    def middle(name: str) -> float:
        return round(statistics.median(samples[name]), 3)

    return {
        "add_us": {"p50": middle("add"), "p99": middle("add_p99")},
        "add_floor_us": middle("add_floor"),
        "sample32_us": middle("sample32"),
        "sample4096_us": middle("sample4096"),
        "sample4096_floor_us": middle("take4096"),
        "publish_to_live_us": {str(size): middle(f"publish_{size}") for size in FLOAT32S},
        "memcpy_us": {str(size): middle(f"memcpy_{size}") for size in FLOAT32S},
        "refresh_unchanged_ns": middle("unchanged"),
        "torn": int(sum(samples["race_torn"]) + weights["torn"]),
        "retries_per_read": round(weights["missed"] / max(1, weights["reads"]), 6),
        "adds_per_s": round(middle("race_adds_per_s")),
        "add_batch_records_per_s": round(middle("add_batch")),
    }


def notes(samples: dict[str, list[float]], weights: dict[str, float]) -> list[str]:
    """Ratios taken within rounds, against the targets."""

    def ratio(first: str, second: str, times: float = 1.0) -> float:
        return statistics.median(a / (times * b) for a, b in zip(samples[first], samples[second], strict=True))

    lines = [
        f"measured on {machine()}",
        f"add / floor: p50 {ratio('add', 'add_floor'):.2f} (at most 4),"
        f" p99 {ratio('add_p99', 'add_floor_p99'):.2f} (at most 8)",
        f"sample 32 / fancy index: {ratio('sample32', 'fancy32'):.2f} (at most 1.5);"
        f" with the views kept {ratio('gather32', 'fancy32'):.2f}",
        f"sample 4,096 / take: {ratio('sample4096', 'take4096'):.2f} (at most 2);"
        f" with the views kept {ratio('gather4096', 'take4096'):.2f}",
        f"two processes: {statistics.median(samples['race_adds_per_s']):,.0f} adds/s (about 1 M),"
        f" {statistics.median(samples['race_samples_per_s']):,.0f} samples of 32 a second (about 27 k),"
        f" {sum(samples['race_torn']):.0f} torn in {sum(samples['race_rows']):,.0f} rows, an eighth looked at",
        f"1 MiB every millisecond: {weights['missed']} misses in {weights['reads']:,} takes",
    ]
    for size in FLOAT32S:
        lines.append(
            f"publish to live, {size:,} float32: {ratio(f'publish_{size}', f'memcpy_{size}', 2):.2f} of two copies;"
            f" the reader's part {statistics.median(samples[f'reader_{size}']):.1f} us"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object and nothing else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--role", choices=("writer", "publisher"), help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        child(options.role, options.name, options.size)
        return 0
    with awake_cores():
        figures, lines = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join([*(f"{name}: {value}" for name, value in figures.items()), *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
