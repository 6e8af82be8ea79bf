"""The simulated world."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tandem.queen.entities import PARASITE_LIFE
from tandem.queen.gate_config import GateConfig
from tandem.queen.observation import Observation, parse_observation
from tandem.queen.reward import QueenReward
from tandem.queen.world import World

WINDOW = 15.0
KINDS = ("energy", "combat")


def history(world: World, windows: int = 12) -> list[str]:
    """What happens in so many windows, spawning into the busiest chunk."""
    seen = []
    for _ in range(windows):
        data = world.observation()
        seen.append(json.dumps(data, allow_nan=False))
        mining = [worker["chunkId"] for worker in data["miningWorkers"]]
        if mining:
            world.spawn(max(set(mining), key=lambda chunk: (mining.count(chunk), chunk)), "energy")
        world.advance(WINDOW)
    return seen


def immediate_reward(world: World, seen: Observation, chunk: int, kind: str, seeds: list[int]) -> float:
    """The mean reward of one spawn in copies of the world with chances of their own."""
    calculator = QueenReward(GateConfig())
    context = calculator.context(seen)
    total = 0.0
    for seed in seeds:
        twin = world.copy(seed)
        executed = twin.spawn(chunk, kind)
        twin.advance(WINDOW)
        action = (chunk, KINDS.index(kind))
        total += calculator.reward(context, action, executed, parse_observation(twin.observation()))[0]
    return total / len(seeds)


def test_same_seed_same_world() -> None:
    """The same seed and the same calls give the same observations; another seed gives others."""
    assert history(World(7)) == history(World(7))
    assert history(World(7)) != history(World(8))


def test_steps_add_up() -> None:
    """Many small advances amount to a large one."""
    one, many = World(3), World(3)
    one.advance(30.0)
    for _ in range(300):
        many.advance(0.1)
    assert one.observation() == many.observation()


@pytest.mark.parametrize("axis", [4, 16, 20])
def test_observation_is_complete_and_inside_the_grid(axis: int) -> None:
    """Observations carry every field of the simulator's dialect; all chunks lie on the grid; miners are present too."""
    world = World(5, chunks_per_axis=axis)
    rng = random.Random(1)
    for _ in range(30):
        data = world.observation()
        seen = parse_observation(json.loads(json.dumps(data, allow_nan=False)))
        assert set(data["queenEnergy"]) == {"current"}
        assert set(data["playerEnergy"]) == set(data["playerMinerals"]) == {"start", "end"}
        for worker in data["workersPresent"]:
            assert worker["chunkId"] == worker["y"] * axis + worker["x"]
            assert worker["state"] in ("moving_to_mine", "mining", "returning", "fleeing")
        assert all(worker in data["workersPresent"] for worker in data["miningWorkers"])
        places = seen.present + seen.protectors + [chunk for chunk, _ in seen.parasites_end]
        assert all(0 <= chunk < axis * axis for chunk in places)
        assert seen.hive == (axis // 2) * axis + axis // 2
        assert 0 <= seen.queen_energy <= 100
        world.spawn(rng.randrange(axis * axis), rng.choice(KINDS))
        world.advance(WINDOW)


def test_window_reaches_from_one_observation_to_the_next() -> None:
    """Start values are the end values of the observation before."""
    world = World(2, protectors=0)
    before = world.observation()
    world.spawn(before["hiveChunk"], "combat")
    world.advance(5.0)
    after = world.observation()
    for stock in ("playerEnergy", "playerMinerals"):
        assert after[stock]["start"] == before[stock]["end"]
        assert after[stock]["start"] != after[stock]["end"]
    assert after["parasitesStart"] == before["parasitesEnd"] == []
    assert [parasite["type"] for parasite in after["parasitesEnd"]] == ["combat"]


def test_queen_pays_and_regenerates() -> None:
    """A spawn costs its type's energy, is refused when it cannot be paid, and 3.0 come back each second."""
    world = World(1)
    assert world.observation()["queenEnergy"]["current"] == 50.0
    assert world.spawn(0, "combat")
    assert world.spawn(0, "combat")
    assert world.observation()["queenEnergy"]["current"] == 0.0
    assert not world.spawn(0, "energy")
    world.advance(5.0)
    assert world.observation()["queenEnergy"]["current"] == pytest.approx(15.0)
    assert world.spawn(0, "energy")
    world.advance(100.0)
    assert world.observation()["queenEnergy"]["current"] == 100.0


@pytest.mark.parametrize(("chunk", "kind"), [(-1, "energy"), (400, "energy"), (3, "spore")])
def test_impossible_spawn_is_refused(chunk: int, kind: str) -> None:
    """A chunk off the grid or an unknown type is refused and costs nothing."""
    world = World(1)
    assert not world.spawn(chunk, kind)
    assert world.observation()["queenEnergy"]["current"] == 50.0


def test_parasites_do_not_outlive_a_window() -> None:
    """A parasite is gone before the second observation after its spawn."""
    world = World(4)
    world.spawn(0, "energy")
    world.advance(PARASITE_LIFE)
    assert world.observation()["parasitesEnd"] == []
    assert PARASITE_LIFE <= WINDOW


def test_workers_flee_and_mining_suffers() -> None:
    """A parasite at an unguarded spot drives the workers off it, and they come back to work elsewhere."""
    world = World(6, protectors=0)
    world.advance(WINDOW)
    data = world.observation()
    mining = [worker["chunkId"] for worker in data["miningWorkers"]]
    busiest = max(set(mining), key=mining.count)
    assert world.spawn(busiest, "energy")
    states: set[Any] = set()
    least = 1.0
    for _ in range(10):
        world.advance(1.0)
        states |= {worker["state"] for worker in world.observation()["workersPresent"]}
        least = min(least, world.mining_share())
    assert "fleeing" in states
    assert least < len(mining) / 12
    assert busiest not in [worker["chunkId"] for worker in world.observation()["miningWorkers"]]
    world.advance(30.0)
    assert world.mining_share() > 0.5


def test_guards_kill_energy_parasites_at_once() -> None:
    """An energy parasite at a guarded spot dies before it scares anyone; a combat parasite kills a lone protector."""
    world = World(9, protectors=1)
    guarded = world.observation()["protectors"][0]["chunkId"]
    twin = world.copy()
    assert world.spawn(guarded, "energy")
    world.advance(3.0)
    data = world.observation()
    assert data["parasitesEnd"] == []
    assert all(worker["state"] != "fleeing" for worker in data["workersPresent"])
    assert twin.spawn(guarded, "combat")
    twin.advance(6.0)
    assert twin.observation()["protectors"] == []
    twin.advance(60.0)
    assert len(twin.observation()["protectors"]) == 1


def test_copy_shares_nothing() -> None:
    """A copy goes its own way, with the same chance unless it is given another; the original does not notice."""
    world = World(11)
    world.advance(45.0)
    world.spawn(world.hive, "energy")
    alike, other = world.copy(), world.copy(seed=1)
    other.spawn(0, "combat")
    futures = history(alike), history(other)
    assert history(world) == futures[0] != futures[1]


def test_spots_move() -> None:
    """Where mining pays changes with time and from seed to seed."""
    chunks = []
    for seed in range(3):
        world = World(seed)
        for _ in range(3):
            world.advance(1000.0)
            chunks.append({worker["chunkId"] for worker in world.observation()["miningWorkers"]})
    assert all(one != other for index, one in enumerate(chunks) for other in chunks[index + 1 :])


def test_good_decisions_beat_random_and_naive_ones() -> None:
    """From the same states, looking ahead earns clearly more than the busiest chunk or a random one."""
    rng = random.Random(3)
    earned = {"random": 0.0, "busiest": 0.0, "ahead": 0.0}
    windows = 30
    for seed in range(3):
        world = World(seed)
        for _ in range(windows // 3):
            world.advance(WINDOW)
            seen = parse_observation(world.observation())
            chances = [rng.randrange(10**9) for _ in range(2)]
            spots = sorted(set(seen.mining)) or [world.hive]
            busiest = max(spots, key=seen.mining.count)
            earned["busiest"] += immediate_reward(world, seen, busiest, "energy", chances)
            earned["random"] += immediate_reward(world, seen, rng.randrange(400), rng.choice(KINDS), chances)
            planned = [rng.randrange(10**9)]
            options = [(chunk, kind) for chunk in spots for kind in KINDS]
            values = {option: immediate_reward(world, seen, *option, planned) for option in options}
            best = max(options, key=lambda option: values[option])
            earned["ahead"] += immediate_reward(world, seen, *best, chances)
            world.spawn(rng.choice(spots), rng.choice(KINDS))
    mean = {name: total / windows for name, total in earned.items()}
    assert mean["ahead"] > mean["busiest"] + 0.1
    assert mean["ahead"] > mean["random"] + 0.1
