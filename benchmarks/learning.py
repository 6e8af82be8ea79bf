"""How fast and how well the system learns: `./ctl bench learning [--json]`.

Plays the simulated world in simulated time with the system's own parts: features, policy, gate, reward calculator,
training rewards, learner. Only shared memory and processes are left out, so that hours of the game take minutes.
docs/learning.md describes the protocol, the arms and the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tandem.inference_proc.policy import Draw, Policy
from tandem.queen import create
from tandem.queen.gate import SimulationGate
from tandem.queen.gate_config import GateConfig
from tandem.queen.observation import Observation, parse_observation
from tandem.queen.reward import QueenReward
from tandem.queen.world import World
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.experiences.records import SEND, WAIT
from tandem.shared.instance import record_layout, seeded_model
from tandem.shared.learning import build_learner, make_batch, training_rewards

TERRITORIES = 4
WINDOW = 15.0
TRAINING_INTERVAL = 1.0
SEEDS = 5
OBSERVATIONS = {"continuous": 1500, "coupled": 5000, "random": 1000, "nearest_worker": 1000, "oracle": 400}
SETTLED = bool(os.environ.get("TANDEM_BENCH_SETTLED"))
AHEAD = 100
"""Decisions of each seed over which a curve's points are averaged, from the point on."""
FUTURES = 3
"""Copies of the world in which the oracle tries each action."""
KINDS = ("energy", "combat")


@dataclasses.dataclass
class Curve:
    """What one run of one arm gave: for every decision its reward and the mining share that followed."""

    arm: str
    seed: int
    rewards: list[float]
    mining: list[float]
    sent: list[bool]
    seconds: float
    steps: int


class FixedConfig:
    """The gate's configuration, as the parts of the Queen take it."""

    def __init__(self, config: GateConfig) -> None:
        self.current = config


def gate_config(settled: bool) -> GateConfig:
    """The gate's defaults. In every arm the gate is as at version 0, so that all are compared under the same one.

    With `settled` the exploration bonus is at its floor, as in a system that has run for long.
    """
    default = GateConfig()
    return dataclasses.replace(default, exploration_coefficient=default.exploration_min) if settled else default


class Buffer:
    """A replay buffer within the process: the newest completed records, sampled uniformly without repetition."""

    def __init__(self, dtype: np.dtype[Any], capacity: int, seed: int) -> None:
        self.rows = np.zeros(capacity, dtype)
        self.count = 0
        self.rng = np.random.default_rng(seed)

    def append(self, row: np.ndarray[Any, Any]) -> None:
        """Add a completed record; the oldest goes."""
        self.rows[self.count % len(self.rows)] = row
        self.count += 1

    def sample(self, count: int) -> np.ndarray[Any, Any]:
        """At most `count` different records."""
        size = min(self.count, len(self.rows))
        return self.rows[self.rng.choice(size, min(count, size), replace=False)]


class Learning:
    """The arms `continuous` and `coupled`: a policy that is trained on what it did."""

    def __init__(self, seed: int, coupled: bool, config: ContinuousTrainingConfig, settings: dict[str, Any]) -> None:
        self.coupled = coupled
        self.config = config
        application = create(settings, Path(__file__).parents[1] / "configs")
        self.records = record_layout(application)
        model = seeded_model(application, seed)
        self.model = model
        self.learner = build_learner(model, application.heads, config)
        self.policy = Policy(model, seed=seed + 1000)
        self.encode = application.encode
        self.buffer = Buffer(self.records.record, config.buffer_capacity, seed + 2000)
        self.version = 0

    def act(self, seen: Observation) -> tuple[Draw, Any]:
        """Draw an action; the second is what the record needs."""
        features = self.encode(seen)
        return self.policy.act(features), features

    def complete(self, row: np.ndarray[Any, Any]) -> None:
        """A decision became an experience."""
        if not self.coupled:
            self.buffer.append(row)
        elif row["decision"] == SEND or row["expected_reward"] > -1.0:
            reward = row["actual_reward"] if row["decision"] == SEND else 0.3 * row["expected_reward"]
            self._step(row[None], np.array([reward], np.float32))

    def tick(self) -> None:
        """A training interval has passed."""
        if self.coupled or self.buffer.count < self.config.min_batch_size:
            return
        # At this pace of decisions `auto` means one, too.
        fixed = self.config.steps_per_interval
        for _ in range(1 if isinstance(fixed, str) else fixed):
            rows = self.buffer.sample(self.config.batch_size)
            self._step(rows, training_rewards(rows, self.config))

    def _step(self, rows: np.ndarray[Any, Any], rewards: np.ndarray[Any, Any]) -> None:
        self.model.train()
        self.learner.step(make_batch(rows, rewards, torch.device("cpu")))
        self.model.eval()
        self.version += 1


def random_action(rng: np.random.Generator, chunks: int) -> tuple[int, int]:
    """Any chunk, any type."""
    return int(rng.integers(chunks)), int(rng.integers(2))


def nearest_worker(seen: Observation) -> tuple[int, int]:
    """The chunk with the most mining workers, and the cheaper parasite."""
    places = [place for place in seen.mining if place >= 0] or [place for place in seen.present if place >= 0]
    if not places:
        return max(seen.hive, 0), 0
    return max(sorted(set(places)), key=places.count), 0


class Oracle:
    """Tries every promising action that the gate would let through in copies of the world, and takes the best.

    Promising: the chunks where workers are and those around them, both types. Each is tried in the same FUTURES
    copies, whose chances are not those of the real world. Waiting is tried as well.
    """

    def __init__(self, gate: SimulationGate, reward: QueenReward, config: GateConfig, seed: int) -> None:
        self.gate, self.reward, self.config = gate, reward, config
        self.rng = np.random.default_rng(seed)

    def act(self, seen: Observation, world: World, key: int) -> tuple[int, int]:
        """The action with the best mean reward at the next observation."""
        axis = self.config.chunks_per_axis
        places = {place for place in seen.present if place >= 0}
        near = {
            z * axis + x
            for place in places
            for z in range(max(0, place // axis - 4), min(axis, place // axis + 5), 2)
            for x in range(max(0, place % axis - 4), min(axis, place % axis + 5), 2)
        }
        chunks = sorted(places | near)
        actions = [(chunk, kind) for chunk in chunks for kind in (0, 1)]
        verdicts = self.gate.evaluate_many(seen, [a[0] for a in actions], [a[1] for a in actions], key, 0)
        open_to = [(verdicts.expected_reward[i], action) for i, action in enumerate(actions) if verdicts.send[i]]
        # Look-ahead is dear: it is spent on the chunks with workers first, then on a choice of the others.
        order = self.rng.permutation(len(open_to))
        tried = [open_to[i][1] for i in sorted(order, key=lambda i: open_to[i][1][0] not in places)]
        context = self.reward.context(seen)
        chances = [int(chance) for chance in self.rng.integers(2**31, size=FUTURES)]
        best, best_value = (0, 0), self._try(world, context, None, chances)
        for action in tried[:24]:
            value = self._try(world, context, action, chances)
            if value > best_value:
                best, best_value = action, value
        return best

    def _try(self, world: World, context: Any, action: tuple[int, int] | None, chances: list[int]) -> float:
        total = 0.0
        for chance in chances:
            copy = world.copy(chance)
            if action is not None and not copy.spawn(action[0], KINDS[action[1]]):
                return -math.inf
            copy.advance(WINDOW)
            seen = parse_observation(copy.observation())
            total += self.reward.reward(context, action or (0, 0), action is not None, seen)[0]
        return total / len(chances)


def play(arm: str, seed: int, observations: int, config: ContinuousTrainingConfig, settings: dict[str, Any]) -> Curve:
    """One run of one arm: TERRITORIES worlds in turn, an observation each every WINDOW seconds."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    clock = [0.0]
    source = FixedConfig(gate_config(SETTLED))
    gate = SimulationGate(source, clock=lambda: clock[0])
    reward = QueenReward(source)
    rng = np.random.default_rng(seed + 3000)
    learning = Learning(seed, arm == "coupled", config, settings) if arm in ("continuous", "coupled") else None
    oracle = Oracle(gate, reward, source.current, seed + 4000)
    worlds = [World(seed * 1000 + index) for index in range(TERRITORIES)]
    waiting: list[tuple[Any, tuple[int, int], bool, Any] | None] = [None] * TERRITORIES
    curve = Curve(arm, seed, [], [], [], 0.0, 0)
    next_tick = TRAINING_INTERVAL
    for index, world in enumerate(worlds):
        world.advance(30.0 + index * WINDOW / TERRITORIES)
    for number in range(observations + TERRITORIES):
        index = number % TERRITORIES
        world = worlds[index]
        clock[0] += WINDOW / TERRITORIES
        while learning is not None and next_tick <= clock[0]:
            learning.tick()
            next_tick += TRAINING_INTERVAL
        world.advance(WINDOW)
        seen = parse_observation(world.observation())
        before = waiting[index]
        if before is not None:
            context, action, executed, row = before
            value, _ = reward.reward(context, action, executed, seen)
            curve.rewards.append(value)
            curve.mining.append(len(seen.mining) / max(1, len(seen.present)))
            curve.sent.append(executed)
            if learning is not None and executed:
                row["actual_reward"] = value
                learning.complete(row)
        draw, features = None, None
        if learning is not None:
            draw, features = learning.act(seen)
            action = (draw.action[0], draw.action[1])
        elif arm == "random":
            action = random_action(rng, source.current.chunks)
        elif arm == "nearest_worker":
            action = nearest_worker(seen)
        else:
            action = oracle.act(seen, world, index)
        verdict = gate.evaluate(seen, action, index, 0)
        executed = verdict.send and world.spawn(action[0], KINDS[action[1]])
        if executed:
            gate.sent(index, action)
        row = None
        if learning is not None and draw is not None:
            row = np.zeros((), learning.records.record)
            row["observation"], row["action"], row["probability"] = features, action, draw.probability
            row["decision"] = SEND if executed else WAIT
            row["expected_reward"] = max(verdict.expected_reward, -1.0)
            row["actual_reward"], row["version"] = math.nan, learning.version
            if not executed:
                learning.complete(row)
        waiting[index] = (reward.context(seen), action, executed, row)
    curve.seconds = time.perf_counter() - started
    curve.steps = learning.version if learning else 0
    return curve


def last_fifth(values: list[float]) -> float:
    """Mean of the last fifth."""
    return statistics.fmean(values[-max(1, len(values) // 5) :])


def interval(values: list[float]) -> list[float]:
    """The 95 % confidence interval of the mean of one value per seed (Student's t)."""
    if len(values) < 2:
        return [math.nan, math.nan]
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(len(values), 2.0)
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return [mean - half, mean + half]


def ahead(curves: list[Curve]) -> np.ndarray[Any, Any]:
    """The mean reward over all seeds of decisions n to n + AHEAD, for every n."""
    values = np.mean([curve.rewards for curve in curves], axis=0)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return np.asarray((sums[AHEAD:] - sums[:-AHEAD]) / AHEAD)


def first_at(curves: list[Curve], level: float) -> int | None:
    """How many observations it takes until the decisions that follow earn `level` on average; None if never."""
    above = np.flatnonzero(ahead(curves) >= level)
    return int(above[0]) if len(above) else None


def _play(arguments: tuple[Any, ...]) -> Curve:
    return play(*arguments)


def run(
    arms: list[str], seeds: int, scale: float, config: ContinuousTrainingConfig, settings: dict[str, Any]
) -> list[Curve]:
    """Every arm with every seed, on all processor cores."""
    jobs = [
        (arm, seed, max(2 * AHEAD, int(OBSERVATIONS[arm] * scale)), config, settings)
        for arm in arms
        for seed in range(seeds)
    ]
    # Spawned processes read this when they load torch: a second thread per process would only get in the way.
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs.sort(key=lambda job: -job[2])
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        return list(pool.imap_unordered(_play, jobs, chunksize=1))


def summarise(curves: list[Curve]) -> dict[str, Any]:
    """The figures of docs/learning.md from the runs."""
    arms: dict[str, Any] = {}
    for arm in OBSERVATIONS:
        mine = sorted((curve for curve in curves if curve.arm == arm), key=lambda curve: curve.seed)
        if not mine:
            continue
        ends = [last_fifth(curve.rewards) for curve in mine]
        mining = [last_fifth(curve.mining) for curve in mine]
        arms[arm] = {
            "mean_reward": statistics.fmean(ends),
            "mean_reward_interval": interval(ends),
            "mean_reward_by_seed": ends,
            "mining_share": statistics.fmean(mining),
            "mining_share_interval": interval(mining),
            "send_share": statistics.fmean(last_fifth([float(sent) for sent in curve.sent]) for curve in mine),
            "observations": len(mine[0].rewards),
            "training_steps": mine[0].steps,
            "seconds": sum(curve.seconds for curve in mine),
            "curve": [round(float(value), 4) for value in ahead(mine)[::25]],
        }
    result: dict[str, Any] = {"arms": arms}
    if "random" in arms and "oracle" in arms:
        low, high = arms["random"]["mean_reward"], arms["oracle"]["mean_reward"]
        level = low + 0.9 * (high - low)
        result["level_90_percent"] = level
        for arm in ("continuous", "coupled"):
            if arm not in arms:
                continue
            mine = [curve for curve in curves if curve.arm == arm]
            arms[arm]["observations_to_90_percent"] = first_at(mine, level)
            arms[arm]["share_of_the_way"] = (arms[arm]["mean_reward"] - low) / (high - low)
        if "nearest_worker" in arms:
            arms["nearest_worker"]["share_of_the_way"] = (arms["nearest_worker"]["mean_reward"] - low) / (high - low)
    return result


def targets(result: dict[str, Any]) -> dict[str, bool | None]:
    """Which of the targets are met; None where an arm is missing."""
    arms = result["arms"]
    if not {"continuous", "coupled", "random", "nearest_worker", "oracle"} <= set(arms):
        return {}
    continuous, coupled = arms["continuous"], arms["coupled"]
    needed, theirs = continuous["observations_to_90_percent"], coupled["observations_to_90_percent"]
    theirs = coupled["observations"] if theirs is None else theirs
    return {
        "continuous_reaches_90_percent": needed is not None and continuous["share_of_the_way"] >= 0.9,
        "in_a_tenth_of_what_coupled_needs": needed is not None and needed * 10 <= theirs,
        "beats_nearest_worker": continuous["mean_reward_interval"][0] > arms["nearest_worker"]["mean_reward"],
        "no_seed_collapses": min(continuous["mean_reward_by_seed"])
        > arms["random"]["mean_reward"] + 0.5 * (arms["oracle"]["mean_reward"] - arms["random"]["mean_reward"]),
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the mean reward against the observations, if matplotlib can be imported."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110)
    arms = result["arms"]
    for arm, colour in (("continuous", "tab:blue"), ("coupled", "tab:orange")):
        if arm in arms:
            curve = arms[arm]["curve"]
            axes.plot([25 * (index + 0.02) for index in range(len(curve))], curve, label=arm, color=colour)
    for arm, style in (("oracle", "--"), ("nearest_worker", "-."), ("random", ":")):
        if arm in arms:
            axes.axhline(arms[arm]["mean_reward"], label=arm.replace("_", " "), color="gray", linestyle=style)
    if "level_90_percent" in result:
        axes.axhline(result["level_90_percent"], label="90 % of the way", color="tab:green", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(left=20)
    axes.set_xlabel("observations")
    axes.set_ylabel(f"mean reward of the next {AHEAD} decisions, 5 seeds")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--arms", default=",".join(OBSERVATIONS))
    parser.add_argument("--model", default="candidates")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the trainer")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves (needs matplotlib)")
    options = parser.parse_args(arguments)
    changes: dict[str, Any] = {}
    for item in options.set:
        name, _, value = item.partition("=")
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    config = dataclasses.replace(ContinuousTrainingConfig(), **changes)
    started = time.perf_counter()
    curves = run(options.arms.split(","), options.seeds, options.scale, config, {"model": options.model})
    result = summarise(curves)
    result["targets"] = targets(result)
    result["seconds"] = time.perf_counter() - started
    if options.plot:
        plot(result, Path(options.plot))
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
