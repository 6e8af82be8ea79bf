"""A simulated territory that plays the game's side: a player mines and defends, the Queen may spawn parasites."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from .economy import Economy
from .entities import (
    CHASE_SPEED,
    CHASING,
    FLEEING,
    FLEEING_SPEED,
    FRIGHT_RANGE,
    FRIGHT_TIME,
    HATCHING,
    MINING,
    MOVING,
    PARASITE_HEALTH,
    PARASITE_LIFE,
    PATROL_SPEED,
    PATROLLING,
    PROTECTOR_HEALTH,
    RETURNING,
    SIGHT,
    WORKER_SPEED,
    Cast,
    Mover,
    Parasite,
    Protector,
    Spot,
    Worker,
    approach,
    fight,
    hunt,
    nearest,
)

STEP = 0.5
"""Seconds of one step of the simulation."""
REBUILDING = 45.0
RELOCATION = 900.0
_SPOTS = 7
_AVOIDANCE = 20.0
_GUARDS_PER_SPOT = 2
_SAFE_DISTANCE = 4.5


# Many methods: one for each thing that workers, protectors and spots do in a step.
class World:
    """One territory in simulated time; the same seed and the same calls give the same world.

    Workers mine at spots that run dry and appear elsewhere, so that what is right changes from window to
    window. Protectors keep to the busiest spots and kill energy parasites there at once; a combat parasite beats a
    lone protector and loses to two. A parasite lives for less than a window of 15 s.
    """

    def __init__(
        self,
        seed: int = 0,
        chunks_per_axis: int = 20,
        workers: int = 12,
        protectors: int = 3,
        energy_cost: float = 15.0,
        combat_cost: float = 25.0,
    ) -> None:
        self.chunks_per_axis = chunks_per_axis
        self.costs = {"energy": energy_cost, "combat": combat_cost}
        self.time = 0.0
        self.tick = 0
        self.economy = Economy()
        self._random = random.Random(seed)
        self._owed = 0.0
        self._named = 0
        self._protectors = protectors
        self._rebuild: list[float] = []
        self._awake: list[Parasite] = []
        self._base = self._somewhere()
        self._relocation = RELOCATION
        spots = [self._new_spot() for _ in range(_SPOTS)]
        self.cast = Cast(spots, [], [], [])
        for _ in range(workers):
            spot = self._choose_spot()
            worker = Worker(self._name("w"), spot.x, spot.z, spot)
            self._settle(worker)
            self.cast.workers.append(worker)
        for _ in range(protectors):
            self._add_protector()
        self._open_window()

    @property
    def hive(self) -> int:
        """The chunk of the hive: the middle of the territory."""
        return self.chunk(self.chunks_per_axis / 2, self.chunks_per_axis / 2)

    def chunk(self, x: float, z: float) -> int:
        """The id of the chunk that a place lies in."""
        last = self.chunks_per_axis - 1
        return min(max(int(z), 0), last) * self.chunks_per_axis + min(max(int(x), 0), last)

    def advance(self, seconds: float) -> None:
        """Let simulated time pass, in steps of half a second; a remainder is kept for the next call."""
        self._owed += seconds
        while self._owed >= STEP - 1e-9:
            self._owed -= STEP
            self._step()

    def spawn(self, chunk: int, kind: str) -> bool:
        """Spawn a parasite (`energy` or `combat`); False if the Queen cannot pay or the chunk is off the grid."""
        if kind not in self.costs or not 0 <= chunk < self.chunks_per_axis**2:
            return False
        if not self.economy.pay_parasite(self.costs[kind]):
            return False
        x, z = chunk % self.chunks_per_axis + 0.5, chunk // self.chunks_per_axis + 0.5
        self.cast.parasites.append(Parasite(self._name("p"), x, z, kind, health=PARASITE_HEALTH[kind]))
        return True

    def mining_share(self) -> float:
        """The share of the workers that are mining now, 0..1."""
        workers = self.cast.workers
        return sum(worker.state == MINING for worker in workers) / len(workers) if workers else 0.0

    def observation(self) -> dict[str, Any]:
        """The `data` object of an observation, in the simulator's dialect and ready for strict JSON.

        Start values are those of the previous call: a window reaches from one observation to the next.
        """
        workers = [self._described(worker, state=worker.state) for worker in self.cast.workers]
        start = self._window
        self._open_window()
        end = self._window
        return {
            "timestamp": self.time,
            "tick": self.tick,
            "territoryId": "sim-territory",
            "hiveChunk": self.hive,
            "miningWorkers": [worker for worker in workers if worker["state"] == MINING],
            "workersPresent": workers,
            "protectors": [self._described(protector, state=protector.state) for protector in self.cast.protectors],
            "parasitesStart": start["parasites"],
            "parasitesEnd": end["parasites"],
            "queenEnergy": {"current": round(self.economy.queen, 3)},
            "playerEnergy": {"start": start["energy"], "end": end["energy"]},
            "playerMinerals": {"start": start["minerals"], "end": end["minerals"]},
        }

    def copy(self, seed: int | None = None) -> World:
        """An independent copy for looking ahead: with the same chance as here, or with a chance of its own."""
        twin = object.__new__(World)
        twin.__dict__.update(self.__dict__)
        twin.cast = self.cast.copy()
        twin.economy = replace(self.economy)
        twin._rebuild = list(self._rebuild)
        twin._random = random.Random(seed)
        if seed is None:
            twin._random.setstate(self._random.getstate())
        return twin

    def _step(self) -> None:
        cast = self.cast
        self.time += STEP
        self.tick += 1
        self._renew_spots()
        draining = 0
        for parasite in cast.parasites:
            draining += hunt(parasite, cast, STEP)
        # Workers take no fright at a parasite that was just spawned: guards at the spot may deal with it.
        self._awake = [parasite for parasite in cast.parasites if parasite.life <= PARASITE_LIFE - HATCHING]
        for worker in cast.workers:
            self._work(worker)
        for protector in cast.protectors:
            self._guard(protector)
        fallen = fight(cast, STEP)
        self._rebuild += [self.time + REBUILDING] * fallen
        if self._rebuild and self._rebuild[0] <= self.time and self.economy.pay_protector():
            del self._rebuild[0]
            self._add_protector()
        mining = sum(worker.state == MINING for worker in cast.workers)
        self.economy.step(mining, draining, STEP)

    def _work(self, worker: Worker) -> None:
        if self._awake:
            threat, _ = nearest(worker.x, worker.z, self._awake, FRIGHT_RANGE)
            if threat is not None:
                worker.state, worker.timer = FLEEING, FRIGHT_TIME
                worker.spot.avoided = self.time + _AVOIDANCE
                self._run_from(worker, threat)
                return
        if worker.state == MINING:
            worker.timer -= STEP
            worker.spot.left -= STEP
            if worker.timer <= 0 or worker.spot.left <= 0:
                worker.state = RETURNING
        elif worker.state == MOVING:
            if worker.spot.left <= 0:
                worker.spot = self._choose_spot()
            if approach(worker, worker.spot.x, worker.spot.z, WORKER_SPEED * STEP):
                self._settle(worker)
        elif worker.state == RETURNING:
            if approach(worker, *self._base, WORKER_SPEED * STEP):
                if worker.spot.left <= 0 or self._random.random() < 0.05:
                    worker.spot = self._choose_spot()
                worker.state = MOVING
        else:
            worker.timer -= STEP
            if worker.timer <= 0:
                worker.spot = self._choose_spot()
                worker.state = MOVING

    def _settle(self, worker: Worker) -> None:
        worker.state = MINING
        worker.timer = self._random.uniform(60.0, 120.0)

    def _run_from(self, worker: Worker, threat: Mover) -> None:
        across, along = worker.x - threat.x, worker.z - threat.z
        distance = math.sqrt(across * across + along * along)
        if distance < 0.01:
            angle = self._random.uniform(0.0, 2 * math.pi)
            across, along, distance = math.cos(angle), math.sin(angle), 1.0
        stride = FLEEING_SPEED * STEP / distance
        edge = self.chunks_per_axis - 0.01
        worker.x = min(max(worker.x + across * stride, 0.0), edge)
        worker.z = min(max(worker.z + along * stride, 0.0), edge)

    def _guard(self, protector: Protector) -> None:
        if self.cast.parasites:
            enemy, _ = nearest(protector.x, protector.z, self.cast.parasites, SIGHT)
            if enemy is not None:
                protector.state = CHASING
                approach(protector, enemy.x, enemy.z, CHASE_SPEED * STEP)
                return
        protector.timer -= STEP
        if protector.timer <= 0 or protector.post.left <= 0:
            self._assign(protector)
        if protector.state == CHASING:
            protector.state = PATROLLING
        protector.health = min(PROTECTOR_HEALTH, protector.health + 0.1 * STEP)
        far = abs(protector.x - protector.post.x) + abs(protector.z - protector.post.z) > 2.0
        if approach(protector, protector.goal_x, protector.goal_z, (WORKER_SPEED if far else PATROL_SPEED) * STEP):
            self._patrol(protector)

    def _assign(self, protector: Protector) -> None:
        """Post a protector at a spot that is not fully guarded, busy ones more often."""
        posts = [other.post for other in self.cast.protectors if other is not protector]
        spots = [spot for spot in self.cast.spots if posts.count(spot) < _GUARDS_PER_SPOT]
        weights = [0.3 + sum(worker.spot is spot for worker in self.cast.workers) ** 2 for spot in spots]
        protector.post = self._random.choices(spots, weights)[0]
        protector.timer = self._random.uniform(40.0, 80.0)
        self._patrol(protector)

    def _patrol(self, protector: Protector) -> None:
        protector.goal_x = protector.post.x + self._random.uniform(-0.4, 0.4)
        protector.goal_z = protector.post.z + self._random.uniform(-0.4, 0.4)

    def _add_protector(self) -> None:
        protector = Protector(self._name("g"), *self._base, self.cast.spots[0])
        self._assign(protector)
        if self.tick == 0:
            protector.x, protector.z = protector.goal_x, protector.goal_z
        self.cast.protectors.append(protector)

    def _renew_spots(self) -> None:
        spots = self.cast.spots
        self._relocation -= STEP
        if self._relocation <= 0:
            self._relocation = RELOCATION
            self._base = self._somewhere()
            for spot in spots:
                spot.left = min(spot.left, self._random.uniform(5.0, 30.0))
        for index, spot in enumerate(spots):
            # A spot runs dry by time as well, or those that nobody visits would stay for ever.
            spot.left -= STEP
            if spot.left <= 0:
                spots[index] = self._new_spot()

    def _new_spot(self) -> Spot:
        size = self.chunks_per_axis
        angle = self._random.uniform(0.0, 2 * math.pi)
        distance = self._random.uniform(2.5, 7.0)
        x = min(max(int(self._base[0] + distance * math.cos(angle)), 0), size - 1) + 0.5
        z = min(max(int(self._base[1] + distance * math.sin(angle)), 0), size - 1) + 0.5
        return Spot(x, z, self._random.uniform(400.0, 1200.0), self._random.uniform(0.5, 3.0))

    def _choose_spot(self) -> Spot:
        spots = [spot for spot in self.cast.spots if spot.avoided <= self.time] or self.cast.spots
        if self.cast.parasites:
            calm = [spot for spot in spots if nearest(spot.x, spot.z, self.cast.parasites, _SAFE_DISTANCE)[0] is None]
            spots = calm or spots
        return self._random.choices(spots, [spot.richness for spot in spots])[0]

    def _somewhere(self) -> tuple[float, float]:
        edge = min(4.0, self.chunks_per_axis / 4)
        far = self.chunks_per_axis - edge
        return self._random.uniform(edge, far), self._random.uniform(edge, far)

    def _open_window(self) -> None:
        self._window: dict[str, Any] = {
            "energy": round(self.economy.energy, 3),
            "minerals": round(self.economy.minerals, 3),
            "parasites": [self._described(parasite, type=parasite.kind) for parasite in self.cast.parasites],
        }

    def _described(self, mover: Mover, **more: str) -> dict[str, Any]:
        last = self.chunks_per_axis - 1
        x, z = min(int(mover.x), last), min(int(mover.z), last)
        return {"id": mover.name, "chunkId": z * self.chunks_per_axis + x, "x": x, "y": z, **more}

    def _name(self, letter: str) -> str:
        self._named += 1
        return f"{letter}{self._named}"
