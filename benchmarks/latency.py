"""What training costs the decisions: 1,000 a second with no training, beside a trainer process, beside a thread.

Five arms take turns within one run, several rounds of each, on one engine. The deciding thread is pinned to the first
core and training to the others; a process of class SCHED_IDLE on every core keeps it from halting. Ratios are taken
within a round, and their median over the rounds is reported.

| arm | trains |
|---|---|
| `none` | nothing |
| `every_second` | a trainer process, one step a second |
| `back_to_back` | a trainer process, one step after the other, each published |
| `back_to_back_unpublished` | the same, published into memory of its own: what a busy second core costs by itself |
| `thread` | a training thread inside the deciding process, one step after the other, each published |

With `--single` the application is one of 36 numbers and a choice of 6 with installed settings, each decision gets a
reward, and the arms are `none`, `paced` (a trainer process at the pace that the data set) and `paced_unpublished`;
`full_speed_per_s` is how many decisions a second are made with nothing in between.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _kit import awake_cores, bench_instance, machine, observations, percentiles
from _trainer import config_of
from tandem.inference_proc.engine import Engine
from tandem.shared.configuration.config import parse
from tandem.shared.instance import Instance, create_instance
from tandem.shared.memory.segments import remove_instance
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.trainer import ContinuousTrainer

ARMS = ("none", "every_second", "back_to_back", "back_to_back_unpublished", "thread")
SINGLE = ("none", "paced", "paced_unpublished")
FEATURES, CHOICES = 36, 6
PERIOD_NS = 1_000_000


class Host:
    """A server's main loop: one decision every millisecond, paced by the monotonic clock."""

    def __init__(self, engine: Engine, requests: Sequence[tuple[str, Any]], rewards: bool = False) -> None:
        self.engine = engine
        self._requests = requests
        self._rewards = rewards
        self._turn = 0

    def full_speed(self, seconds: float) -> float:
        """Decisions a second, each with its reward, one directly after the other."""
        started = beat = time.perf_counter()
        count = 0
        while (now := time.perf_counter()) < started + seconds:
            key, observation = self._requests[count % len(self._requests)]
            decision = self.engine.decide(key, observation)
            self.engine.reward(key, float(decision.action[0] == count % CHOICES))
            count += 1
            if now >= beat:
                beat += 0.5
                self.engine.beat()
        return count / (time.perf_counter() - started)

    def run(self, seconds: float) -> tuple[list[int], list[int]]:
        """Durations of `decide`, and times from when a decision was due to its end; nanoseconds."""
        durations, responses = [], []
        due = time.perf_counter_ns() + PERIOD_NS
        end = due + int(seconds * 1e9)
        next_beat = due
        while due < end:
            left = due - time.perf_counter_ns()
            if left > 0:
                time.sleep(left / 1e9)
            key, observation = self._requests[self._turn % len(self._requests)]
            self._turn += 1
            started = time.perf_counter_ns()
            decision = self.engine.decide(key, observation)
            finished = time.perf_counter_ns()
            if self._rewards:
                self.engine.reward(key, float(decision.action[0] == self._turn % CHOICES))
            durations.append(finished - started)
            responses.append(finished - due)
            due += PERIOD_NS
            if finished > due:
                due = finished + PERIOD_NS
            if due > next_beat:
                next_beat += 500 * PERIOD_NS
                self.engine.beat()
        return durations, responses


@contextlib.contextmanager
def trainer_process(instance: str, engine: Engine, mode: str, cores: Sequence[int], nice: int = 5) -> Iterator[None]:
    """A trainer process of its own, ready and trained a little."""
    script = Path(__file__).with_name("_trainer.py")
    words = ["--instance", instance, "--mode", mode, "--cores", ",".join(map(str, cores)), "--nice", str(nice)]
    process = subprocess.Popen([sys.executable, str(script), *words])
    try:
        deadline = time.monotonic() + 120
        while engine.control.get("trainer.ready") != process.pid:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the trainer process ({mode}) did not start")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def trainer_thread(instance: str, cores: Sequence[int]) -> Iterator[None]:
    """A training thread in this process, kept off the deciding thread's core."""
    attached = Instance(instance)
    config = config_of("back_to_back", attached.config.trainer)
    trainer = ContinuousTrainer(attached.build_model(), ExperienceReplayBuffer(attached), config)
    trainer.start()
    assert trainer.loop.thread is not None
    assert trainer.loop.thread.native_id is not None
    os.sched_setaffinity(trainer.loop.thread.native_id, cores)
    try:
        yield
    finally:
        trainer.stop(30)
        attached.control.close()


def training(arm: str, instance: str, engine: Engine, cores: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """What trains during an arm."""
    if arm == "none":
        return contextlib.nullcontext()
    if arm == "thread":
        return trainer_thread(instance, cores)
    return trainer_process(instance, engine, arm, cores)


def measure(arm: str, host: Host, instance: str, cores: Sequence[int], seconds: float) -> dict[str, Any]:
    """One block of one arm."""
    engine = host.engine
    with training(arm, instance, engine, cores):
        host.run(min(1.0, seconds / 4))
        steps, started = engine.control.get("metrics.total_steps"), time.monotonic()
        durations, responses = host.run(seconds)
        rate = (engine.control.get("metrics.total_steps") - steps) / (time.monotonic() - started)
    if arm != "none" and seconds >= 2 and not rate:
        raise RuntimeError(f"{arm}: nothing was trained")
    return {"durations": durations, "responses": responses, "steps_per_s": rate, **percentiles(durations)}


def measure_single(arm: str, host: Host, instance: str, cores: Sequence[int], seconds: float) -> dict[str, Any]:
    """One block of one arm of `--single`."""
    with training(arm, instance, host.engine, cores):
        host.run(min(1.0, seconds / 4))
        durations, _ = host.run(seconds)
        return {**percentiles(durations), "full_speed_per_s": host.full_speed(seconds)}


def take_turns(
    arms: Sequence[str], rounds: int, block: Callable[[str], dict[str, Any]]
) -> list[dict[str, dict[str, Any]]]:
    """A block of every arm in each round; each round begins with the next one."""
    starts = [number % len(arms) for number in range(rounds)]
    return [{arm: block(arm) for arm in (*arms[start:], *arms[:start])} for start in starts]


def ratios(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """The compared figures of targets, each the median over the rounds of the ratio within a round."""
    pairs = {
        "back_to_back_over_unpublished": ("back_to_back", "back_to_back_unpublished"),
        "thread_over_back_to_back": ("thread", "back_to_back"),
        "every_second_over_none": ("every_second", "none"),
    }
    found = {
        name: {
            figure: round(statistics.median(turn[above][figure] / turn[below][figure] for turn in rounds), 3)
            for figure in ("p50", "p99")
        }
        for name, (above, below) in pairs.items()
    }
    found["back_to_back_over_thread"] = {
        "steps_per_s": round(
            statistics.median(
                turn["back_to_back"]["steps_per_s"] / max(1e-9, turn["thread"]["steps_per_s"]) for turn in rounds
            ),
            3,
        )
    }
    return found


def one_core(host: Host, instance: str, core: int, seconds: float) -> dict[str, float]:
    """Both processes on one core, the trainer at nice 19 and never at rest."""
    with trainer_process(instance, host.engine, "back_to_back", [core], nice=19):
        host.run(0.5)
        durations, responses = host.run(seconds)
    return {"seconds": seconds, **percentiles(durations), "max_response": percentiles(responses)["max"]}


def run(rounds: int, seconds: float, one_core_seconds: float, model: str) -> dict[str, Any]:
    """The whole measurement; microseconds."""
    allowed = sorted(os.sched_getaffinity(0))
    first, others = allowed[0], allowed[1:] or allowed
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    settings = {"model": model} if model else {}
    with bench_instance(settings=settings, inference={"seed": 1}, trainer={"seed": 1}) as instance:
        host = Host(Engine.attach(instance), observations(512, seed=1))
        with awake_cores():
            os.sched_setaffinity(0, {first})
            host.run(2.0)
            turns = take_turns(ARMS, rounds, lambda arm: measure(arm, host, instance, others, seconds))
            alone = one_core(host, instance, first, one_core_seconds)
            os.sched_setaffinity(0, set(allowed))
        host.engine.close()
    arms = {
        arm: {
            **{f: round(statistics.median(turn[arm][f] for turn in turns), 2) for f in ("p50", "p99", "p999", "max")},
            "response_p50": percentiles([value for turn in turns for value in turn[arm]["responses"]])["p50"],
            "response_p99": percentiles([value for turn in turns for value in turn[arm]["responses"]])["p99"],
            "steps_per_s": round(statistics.median(turn[arm]["steps_per_s"] for turn in turns), 1),
        }
        for arm in ARMS
    }
    return {
        "unit": "us",
        "model": model or "default",
        "rounds": rounds,
        "seconds": seconds,
        "arms": arms,
        "ratios": ratios(turns),
        "one_core_nice_19": alone,
        "machine": machine(),
    }


def run_single(rounds: int, seconds: float) -> dict[str, Any]:
    """The measurement of an application with one head; microseconds."""
    allowed = sorted(os.sched_getaffinity(0))
    first, others = allowed[0], allowed[1:] or allowed
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = np.random.default_rng(1).standard_normal((512, FEATURES)).astype(np.float32)
    with single_instance() as instance:
        host = Host(Engine.attach(instance), [(f"visitor-{number}", row) for number, row in enumerate(rows)], True)
        with awake_cores():
            os.sched_setaffinity(0, {first})
            host.run(2.0)
            turns = take_turns(SINGLE, rounds, lambda arm: measure_single(arm, host, instance, others, seconds))
            os.sched_setaffinity(0, set(allowed))
        host.engine.close()
    figures = ("p50", "p99", "full_speed_per_s")
    arms = {arm: {f: round(statistics.median(turn[arm][f] for turn in turns), 2) for f in figures} for arm in SINGLE}
    found = {}
    for below in ("paced_unpublished", "none"):
        ratio = {f: round(statistics.median(turn["paced"][f] / turn[below][f] for turn in turns), 3) for f in figures}
        found[f"paced_over_{below}"] = ratio
    return {"unit": "us", "rounds": rounds, "seconds": seconds, "arms": arms, "ratios": found, "machine": machine()}


@contextlib.contextmanager
def single_instance() -> Iterator[str]:
    """The name of a new instance of the suite's application, removed afterwards."""
    name = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        plain = {
            "application": "_bandit_application",
            "settings": {"features": FEATURES, "choices": CHOICES},
            "data_dir": folder,
            "logging": {"level": "error"},
        }
        create_instance(name, parse(plain, "the benchmark's configuration", str(Path(__file__).parent)))
        try:
            yield name
        finally:
            remove_instance(name)


def show(result: dict[str, Any]) -> None:
    """As a table for people."""
    print(f"{'us':26}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>10}{'steps/s':>10}")
    for arm, row in result["arms"].items():
        print(
            f"{arm:26}{row['p50']:9.1f}{row['p99']:9.1f}{row['p999']:9.1f}{row['max']:10.1f}{row['steps_per_s']:10.1f}"
        )
    for name, row in result["ratios"].items():
        print(f"{name:34}" + "  ".join(f"{figure} {value:.2f}" for figure, value in row.items()))
    alone = result["one_core_nice_19"]
    print(f"one core, trainer at nice 19: max {alone['max'] / 1e3:.2f} ms over {alone['seconds']:g} s")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="short, to see that it works; the figures mean little")
    parser.add_argument("--rounds", type=int, help="rounds of all arms (7)")
    parser.add_argument("--seconds", type=float, help="of one block (5)")
    parser.add_argument("--single", action="store_true", help="an application with one head, at the pace of its data")
    parser.add_argument("--model", default="", help="the Queen's model (default: its own default)")
    options = parser.parse_args()
    short = options.quick
    if options.single:
        single = run_single(options.rounds or (1 if short else 7), options.seconds or (1.0 if short else 5.0))
        print(json.dumps(single, indent=None if options.json else 2))
        return 0
    result = run(
        options.rounds or (1 if options.quick else 7),
        options.seconds or (1.0 if options.quick else 5.0),
        2.0 if options.quick else 20.0,
        options.model,
    )
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
