"""Each reward counts at most once, an acknowledged one is never lost: retries, kills, several workers on one key."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from channel_kit import balance
from proof import figure, size
from tandem.shared.memory.segments import remove_instance

MakeChannel = Callable[..., Any]
WORKERS = 2


def reconcile(channel: MakeChannel, nursery: Any, folder: Path, lane: str, kills: int) -> dict[str, int]:
    """Kill workers that decide and reward under shared keys, again and again; compare their journals with the rings."""
    made = channel(lanes=WORKERS, capacity=400_000, pending=8)
    rng = np.random.default_rng(1)
    workers: dict[int, Any] = {}
    seed = 0
    for kill in range(kills + 1):
        for worker in range(WORKERS):
            if worker not in workers:
                seed += 1
                journal = str(folder / f"journal{seed}")
                arguments = {"worker": worker, "journal": journal, "seed": seed}
                workers[worker] = nursery.start("decide_and_reward", name=made.name, lane=lane, **arguments).ready()
        if kill < kills:
            time.sleep(float(rng.uniform(0.01, 0.06)))
            workers.pop(int(rng.integers(WORKERS))).kill()
    time.sleep(0.1)
    for child in workers.values():
        child.stop()
    # Whoever owns the lanes next takes in what was acknowledged last.
    lanes = [made.claim() for _ in range(WORKERS)]
    for end in lanes:
        end._writer.collect()
    lines = [line for path in folder.glob("journal*") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    acknowledged = Counter(float(line) for line in lines if not line.startswith("refused"))
    refused = Counter(float(line.split()[1]) for line in lines if line.startswith("refused"))
    rows = made.reader(verify=True).recent(10**9)
    counted = Counter(rows["actual_reward"].astype(np.float64).tolist())
    return {
        "acknowledged": sum(acknowledged.values()),
        "counted": len(rows),
        "lost": sum((acknowledged - counted).values()),
        "twice": len(rows) - len(np.unique(rows["ticket"])),
        "superseded": sum(end.get("superseded") for end in lanes),
        "unbalanced": sum(balance(made.control, index) != 0 for index in range(WORKERS)),
        "miscounted": sum(end.get("reward_count") != end.get("completed") for end in lanes),
        "refused and counted": sum(((counted - acknowledged) & refused).values()),
        "unsure": sum((counted - acknowledged - refused).values()),
    }


@pytest.mark.timeout(3600)
def test_promise_47_a_reward_counts_once(channel: MakeChannel, nursery: Any, tmp_path: Path) -> None:
    """After 20 kills every acknowledged reward is in a ring, none twice, and every decision is accounted for.

    A worker that was killed between a reward's completion and its journal leaves one that counts and nobody knows of.
    One that finds the decision's owner at work on the same decision cannot know if its reward was seen: it refuses.
    """
    kills = size(20, 500)
    found = reconcile(channel, nursery, tmp_path, "Lane", kills)
    assert found["lost"] == found["twice"] == found["unbalanced"] == found["miscounted"] == 0, found
    assert found["acknowledged"] > 50 * kills
    assert found["superseded"] > kills
    assert found["unsure"] <= kills, found
    assert found["refused and counted"] < found["acknowledged"] / 100, found
    figure(47, f"{found['acknowledged']:,} acknowledged rewards, 0 lost, 0 twice, in {kills} kills of 2 workers")


def add_up(channel: MakeChannel, nursery: Any, folder: Path, lane: str, kills: int) -> dict[str, int]:
    """Kill workers that reward each other's decisions in parts of 1; compare what was acknowledged with all records."""
    made = channel(lanes=WORKERS, capacity=400_000, pending=8)
    rng = np.random.default_rng(1)
    workers: dict[int, Any] = {}
    for kill in range(kills + 1):
        for worker in range(WORKERS):
            if worker not in workers:
                seed = WORKERS * kill + worker
                arguments = {"journal": str(folder / f"journal{seed}"), "seed": seed}
                workers[worker] = nursery.start("decide_and_add", name=made.name, lane=lane, **arguments).ready()
        time.sleep(float(rng.uniform(0.05, 0.1)))
        if kill < kills:
            workers.pop(int(rng.integers(WORKERS))).kill()
    for child in workers.values():
        child.stop()
    lanes = [made.claim() for _ in range(WORKERS)]
    for end in lanes:
        with end.hold() as writer:
            writer.expire(2**62)
    lines = [line for path in folder.glob("journal*") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    return {
        "acknowledged": lines.count("taken"),
        "refused": lines.count("refused"),
        "earned": int(made.reader(verify=True).recent(10**9)["actual_reward"].astype(np.float64).sum()),
        "partial": sum(end.get("partial") for end in lanes),
        "unbalanced": sum(balance(made.control, index) != 0 for index in range(WORKERS)),
    }


@pytest.mark.timeout(3600)
def test_a_part_of_a_reward_counts_once(channel: MakeChannel, nursery: Any, tmp_path: Path) -> None:
    """What was acknowledged is earned, once; more is, if one was refused at the last moment or not journalled."""
    kills = size(10, 200)
    found = add_up(channel, nursery, tmp_path, "Lane", kills)
    assert found["unbalanced"] == 0, found
    assert found["partial"] > 50 * kills, found
    assert found["acknowledged"] <= found["earned"] <= found["acknowledged"] + kills + found["refused"] / 10, found
    figure(47, f"{found['acknowledged']:,} acknowledged parts of rewards, 0 lost, in {kills} kills of 2 workers")


def test_a_lane_that_does_not_look_again_loses_parts(
    channel: MakeChannel, nursery: Any, tmp_path: Path, instance_name: str
) -> None:
    """The same comparison finds the parts that a lane acknowledges whose owner had added up already."""
    found = []
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        found.append(add_up(channel, nursery, folder, "Hasty", 8))
        if found[-1]["earned"] < found[-1]["acknowledged"]:
            return
        # On a busy machine the two workers may hardly ever meet.
        remove_instance(instance_name)
    raise AssertionError(found)


def test_a_lane_that_does_not_ask_loses_rewards(channel: MakeChannel, nursery: Any, tmp_path: Path) -> None:
    """The same comparison finds the rewards that a lane loses which settles decisions without looking for messages."""
    assert reconcile(channel, nursery, tmp_path, "Oblivious", 8)["lost"] > 0
