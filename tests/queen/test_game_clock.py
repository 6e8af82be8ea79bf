"""The game's time, as it is said and as it is found."""

from __future__ import annotations

import pytest
from tandem.queen.game_clock import WINDOW, GameClock
from tandem.queen.gate import SimulationGate
from tandem.queen.gate_config import GateConfig


class Clock:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def play(clock: Clock, game: GameClock, interval: float, rounds: int = 100, territories: int = 3) -> None:
    """Observe each of the territories every `interval` real seconds."""
    for _ in range(rounds):
        for territory in range(territories):
            clock.now += interval / territories
            game.observed(territory)


@pytest.mark.parametrize(
    ("interval", "speed"), [(WINDOW, 1.0), (12.0, 1.0), (60.0, 1.0), (0.75, 20.0), (0.015, 1000.0)]
)
def test_the_speed_is_that_of_the_observations(interval: float, speed: float) -> None:
    """A game that is played 20 times faster passes 20 seconds in one; a real one, or a paused one, one."""
    clock = Clock()
    game = GameClock(clock)
    play(clock, game, interval)
    before = game.now()
    clock.now += 10.0
    assert game.now() - before == pytest.approx(10.0 * speed, rel=0.01)


def test_a_speed_that_is_set_stays() -> None:
    """Whatever the observations say."""
    clock = Clock()
    game = GameClock(clock, 3.0)
    before = game.now()
    play(clock, game, 0.1, rounds=10)
    assert game.now() - before == pytest.approx(3.0)


def test_time_never_goes_back_when_the_speed_changes() -> None:
    """A fast game that becomes a real one."""
    clock = Clock()
    game = GameClock(clock)
    times = []
    for interval in (0.1, WINDOW, 0.1):
        play(clock, game, interval)
        times.append(game.now())
    assert times == sorted(times)


def test_no_more_territories_are_remembered_than_wanted() -> None:
    """Names that come once do not fill the memory."""
    clock = Clock()
    game = GameClock(clock, max_keys=10)
    for name in range(100):
        game.observed(name)
    assert len(game._last) == 10


def test_a_fast_games_chunks_are_fresh_again_so_much_sooner() -> None:
    """At 30 times the speed 300 seconds of the game are ten real ones."""
    clock = Clock()
    gate = SimulationGate(GateConfig(), clock, speed=None)
    seen = {
        "timestamp": 1.0, "miningWorkers": [{"chunk": 55}], "workersPresent": [{"chunk": 55}], "protectors": [],
        "queenEnergy": {"current": 80.0, "capacity": 100.0}, "playerEnergy": {"start": 1.0, "end": 2.0},
        "playerMinerals": {"start": 1.0, "end": 2.0}, "territoryId": "home",
    }  # fmt: skip
    for _ in range(50):
        clock.now += WINDOW / 30
        gate.evaluate(seen, (55, 0), "home", 0)
    gate.sent("home", (55, 0))
    used = gate.evaluate(seen, (55, 0), "home", 0).components[3]
    clock.now += WINDOW / 30
    later = gate.evaluate(seen, (55, 0), "home", 0).components[3]
    clock.now += 10.0
    fresh = gate.evaluate(seen, (55, 0), "home", 0).components[3]
    assert used == pytest.approx(0.0, abs=1e-6)
    assert later == pytest.approx(fresh * 15.0 / 300.0, rel=0.1)
