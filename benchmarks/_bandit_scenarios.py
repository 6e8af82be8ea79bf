"""The scenarios of bandits.py: learning while the world changes, is late, lies, or is interrupted.

Each plays a made-up world (`_bandit_worlds`) through a real instance, as the sets are played. The figure is how far the
chances of what was chosen lie on the way from a choice by chance to the best choice, over the last fifth of the visits.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from _bandit_live import BEAT, Live, Pace, pace_figures, running
from _bandit_worlds import Floats, Visits, World, simulate

PARTS = 20
"""Parts of a pass whose shares are told besides."""
BURST = 10.0


@dataclass(frozen=True)
class Scenario:
    """A world, how fast it comes, and what is wrong with it. Times are seconds.

    `delay`: the shortest and longest time until a reward. `successes_only`: who was not rewarded is never heard of
    again; after `timeout` seconds the instance takes that for 0 (`inference.default_reward`). `poisoned`: share of
    visitors that send absurd numbers. `restart`: trainer and server are restarted in the middle. `burst`: the fifth in
    the middle comes ten times as fast. `measured`: the visits at the end that count; 0: a fifth. `peer`: linear
    Thompson sampling plays the same in simulated time. `goal`: the share to reach.
    """

    text: str
    world: World = dataclasses.field(default_factory=World)
    rate: float = 200.0
    visits: int = 8000
    delay: tuple[float, float] = (0.0, 0.0)
    successes_only: bool = False
    timeout: float = 0.0
    poisoned: float = 0.0
    restart: bool = False
    burst: bool = False
    measured: int = 0
    peer: bool = True
    goal: float = 0.85

    def faster(self, factor: float) -> Scenario:
        """The same with rate, delays and timeout scaled together."""
        low, high = self.delay
        return dataclasses.replace(
            self, rate=self.rate * factor, delay=(low / factor, high / factor), timeout=self.timeout / factor
        )

    def settings(self) -> dict[str, Any]:
        """What a user would write into the section `inference`."""
        return {"default_reward": 0.0, "pending_timeout": self.timeout} if self.successes_only else {}

    def counted(self, count: int) -> slice:
        """The visits whose share is the figure."""
        return slice(count - min(count, self.measured or max(1, count // 5)), count)


CLICKS = World(low=0.02, high=0.30)
SCENARIOS = {
    "stationary": Scenario("a reward of 0 or 1 at once, and nothing changes", goal=0.90),
    "abrupt-drift": Scenario("in the middle every choice takes another's place", World(drift="abrupt"), goal=0.70),
    "slow-drift": Scenario(
        "all weights turn into others, from the first visit to the last", World(drift="slow"), goal=0.70
    ),
    "delayed": Scenario("rewards come after 1 to 20 s", rate=50.0, visits=6000, delay=(1.0, 20.0)),
    "censored": Scenario(
        "only successes are reported, after up to 2 s",
        rate=100.0, delay=(0.0, 2.0), successes_only=True, timeout=5.0,
    ),
    "noisy-clicks": Scenario("a choice is rewarded in 2 to 30 % of the visits", CLICKS, goal=0.70),
    "poisoned": Scenario("one client in ten sends absurd observations and rewards", poisoned=0.1, peer=False),
    "restart": Scenario("trainer and server are restarted in the middle", restart=True),
    "burst": Scenario("the fifth in the middle comes ten times as fast", rate=100.0, visits=6000, burst=True),
    "shop": Scenario(
        "20 products, clicks in 2 to 30 % after 1 to 20 s, nothing else is reported",
        World(features=12, choices=20, low=0.02, high=0.30, gain=4.0),
        rate=50.0, visits=15_000, delay=(1.0, 20.0), successes_only=True, timeout=30.0, measured=3000, goal=0.80,
    ),
}  # fmt: skip


class Play:
    """One pass of a scenario through a running instance."""

    def __init__(self, scenario: Scenario, visits: Visits, live: Live, seed: int) -> None:
        self.scenario, self.visits, self.live = scenario, visits, live
        self.earned: Floats = np.zeros(len(visits.x))
        self.durations: list[int] = []
        self.refused = 0
        self.rng = np.random.default_rng([seed, 2])
        self._waiting: list[tuple[float, str, float]] = []
        self._restart: subprocess.Popen[str] | None = None

    def run(self) -> Pace:
        """All visits, at their pace."""
        pace, next_beat = Pace(self.scenario.rate), 0.0
        count = len(self.visits.x)
        for number in range(count):
            if self.scenario.burst:
                pace.rate = self.scenario.rate * (BURST if 2 * count <= 5 * number < 3 * count else 1.0)
            if self.scenario.restart and number == count // 2:
                self._restart = self.live.restart_trainer()
                self.live.attach_again()
            now = pace.wait()
            self._reward(now)
            self._visit(number, now)
            if now >= next_beat:
                self.live.engine.beat()
                next_beat = now + BEAT
        return pace

    def _reward(self, now: float) -> None:
        """Report what has become due."""
        while self._waiting and self._waiting[0][0] <= now:
            _, key, value = heapq.heappop(self._waiting)
            self.live.engine.reward(key, value)

    def _visit(self, number: int, now: float) -> None:
        visits, key = self.visits, f"visit-{number}"
        poisoned = bool(visits.poisoned[number])
        x = self._absurd(visits.x.shape[1]) if poisoned else visits.x[number]
        started = time.perf_counter_ns()
        try:
            choice = self.live.engine.decide(key, x).action[0]
        except (ValueError, FloatingPointError):
            # A visit without a decision earns nothing; of a poisoned one this is a good answer.
            self.refused += not poisoned
            return
        self.durations.append(time.perf_counter_ns() - started)
        self.earned[number] = visits.chances[number, choice]
        value = float(visits.luck[number] < self.earned[number])
        if poisoned:
            value = float(self._absurd(1)[0])
        if not value and self.scenario.successes_only:
            return
        heapq.heappush(self._waiting, (now + visits.delays[number], key, value))
        if not visits.delays[number]:
            self._reward(now)

    def _absurd(self, count: int) -> Floats:
        """Numbers of any magnitude that float32 can hold, of either sign."""
        return np.asarray(self.rng.choice([-1.0, 1.0], count) * 10.0 ** self.rng.uniform(2, 38, count))

    def restarted(self) -> float | None:
        """The exit status of `ctl restart`, when it has ended; None if nothing was restarted."""
        if self._restart is None:
            return None
        self._restart.communicate(timeout=120)
        return self._restart.returncode


def play(scenario: Scenario, seed: int, count: int, changes: dict[str, Any]) -> dict[str, Any]:
    """One pass of `count` visits: shares and means, and how the instance fared."""
    world = scenario.world
    visits = world.visits(count, seed, scenario.delay, scenario.poisoned)
    inference = {**scenario.settings(), **changes.get("inference", {})}
    with running(world.features, world.choices, {**changes, "inference": inference}) as live:
        played = Play(scenario, visits, live, seed)
        pace = played.run()
        elapsed = time.monotonic() - pace.started
        status = played.restarted()
        figures = {**pace_figures(played.durations, elapsed, pace), **live.figures()}
        lane = live.engine.get_stats()["lane"]
        names = ("expired", "dropped", "unmatched", "defaulted", "displaced")
        figures |= {name: lane[name] for name in names} | {"late_rewards": lane["late"]}
        figures |= {"honest_refused": played.refused, **({} if status is None else {"restart_status": status})}
    counted = scenario.counted(count)
    silence = scenario.timeout if scenario.successes_only else None
    peer = simulate(visits, seed, scenario.rate, silence) if scenario.peer else None
    return {
        "seed": seed,
        "share": visits.share(played.earned, counted),
        "thompson": None if peer is None else visits.share(peer, counted),
        "mean_chance": float(played.earned[counted][~visits.poisoned[counted]].mean()),
        "oracle": visits.oracle(counted),
        "no_learning": visits.no_learning(counted),
        "parts": parts(visits, played.earned),
        "thompson_parts": None if peer is None else parts(visits, peer),
        "play": figures,
    }


def parts(visits: Visits, earned: Floats) -> list[float]:
    """The share of each twentieth of the pass."""
    ends = np.linspace(0, len(earned), PARTS + 1).astype(int)
    pairs = [(first, end) for first, end in itertools.pairwise(ends.tolist()) if end > first]
    return [round(visits.share(earned, slice(first, end)), 3) for first, end in pairs]
