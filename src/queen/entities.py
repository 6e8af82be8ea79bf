"""Who moves about in the simulated world: spots, workers, protectors and parasites, and how one step moves them.

Positions and distances are in chunks, times in seconds. A chunk stands for ten world units, the scale that the
gate's ranges assume: an energy parasite's pursuit range of 60 units is 6 chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MOVING, MINING, RETURNING, FLEEING = "moving_to_mine", "mining", "returning", "fleeing"
PATROLLING, CHASING = "patrolling", "chasing"

WORKER_SPEED = 1.5
FLEEING_SPEED = 1.8
FRIGHT_RANGE = 3.5
FRIGHT_TIME = 3.0
PATROL_SPEED = 0.5
CHASE_SPEED = 1.4
SIGHT = 4.0
ATTACK_RANGE = 1.2
PROTECTOR_HEALTH = 3.0
PARASITE_SPEED = 1.6
PURSUIT = {"energy": 6.0, "combat": 7.5}
PARASITE_HEALTH = {"energy": 1.0, "combat": 4.0}
PARASITE_LIFE = 14.0
HATCHING = 2.5
DRAIN_RANGE = 2.5


@dataclass(slots=True)
class Spot:
    """A place worth mining until it is exhausted; `richness` draws workers, fresh fright (`avoided`) keeps them off."""

    x: float
    z: float
    left: float
    richness: float
    avoided: float = 0.0


@dataclass(slots=True)
class Worker:
    """Mines at a spot, carries to the base, flees from parasites. `timer` is the time left in its state."""

    name: str
    x: float
    z: float
    spot: Spot
    state: str = MOVING
    timer: float = 0.0


@dataclass(slots=True)
class Protector:
    """Patrols at its post and chases parasites that it sees."""

    name: str
    x: float
    z: float
    post: Spot
    state: str = PATROLLING
    timer: float = 0.0
    health: float = PROTECTOR_HEALTH
    goal_x: float = 0.0
    goal_z: float = 0.0


@dataclass(slots=True)
class Parasite:
    """Hunts until it is killed or its time is up."""

    name: str
    x: float
    z: float
    kind: str
    life: float = PARASITE_LIFE
    health: float = 1.0


@dataclass(slots=True)
class Cast:
    """Everyone in one territory, and the spots."""

    spots: list[Spot]
    workers: list[Worker]
    protectors: list[Protector]
    parasites: list[Parasite]

    def copy(self) -> Cast:
        """A copy that shares nothing; spots that several refer to stay shared within the copy."""
        twins = {id(spot): replace(spot) for spot in self.spots}

        def twin(spot: Spot) -> Spot:
            # A worker may still be on its way to a spot that is exhausted already.
            if id(spot) not in twins:
                twins[id(spot)] = replace(spot)
            return twins[id(spot)]

        return Cast(
            [twin(spot) for spot in self.spots],
            [replace(worker, spot=twin(worker.spot)) for worker in self.workers],
            [replace(protector, post=twin(protector.post)) for protector in self.protectors],
            [replace(parasite) for parasite in self.parasites],
        )


Mover = Worker | Protector | Parasite


def approach(mover: Mover, x: float, z: float, step: float) -> bool:
    """Move towards a place by at most `step`; says whether it was reached."""
    across, along = x - mover.x, z - mover.z
    distance = math.sqrt(across * across + along * along)
    if distance <= step:
        mover.x, mover.z = x, z
        return True
    mover.x += across / distance * step
    mover.z += along / distance * step
    return False


def nearest(
    x: float, z: float, others: list[Worker] | list[Protector] | list[Parasite], within: float
) -> tuple[Mover | None, float]:
    """Who of `others` is nearest to a place and how far, or None and infinity if nobody is nearer than `within`."""
    best: Mover | None = None
    least = within * within
    for other in others:
        across, along = other.x - x, other.z - z
        square = across * across + along * along
        if square < least:
            best, least = other, square
    return best, math.sqrt(least) if best is not None else math.inf


def hunt(parasite: Parasite, cast: Cast, seconds: float) -> bool:
    """Move a parasite towards its prey; says whether it drains the player's energy meanwhile."""
    reach = PURSUIT[parasite.kind]
    prey, distance = nearest(parasite.x, parasite.z, cast.workers, reach)
    if parasite.kind == "energy":
        if prey is not None and distance > 0.5:
            approach(parasite, prey.x, prey.z, PARASITE_SPEED * seconds)
        return distance < DRAIN_RANGE
    guard, guard_distance = nearest(parasite.x, parasite.z, cast.protectors, reach)
    if guard is not None and guard_distance < distance:
        prey, distance = guard, guard_distance
    if prey is not None and distance > 0.5:
        approach(parasite, prey.x, prey.z, PARASITE_SPEED * seconds)
    return False


def fight(cast: Cast, seconds: float) -> int:
    """Protectors and parasites in reach hurt each other; the dead are taken out. Returns how many protectors fell."""
    if not cast.parasites:
        return 0
    for parasite in cast.parasites:
        parasite.life -= seconds
        if parasite.life <= 0:
            parasite.health = 0.0
            continue
        victim, _ = nearest(parasite.x, parasite.z, cast.protectors, ATTACK_RANGE)
        if victim is None:
            continue
        for protector in cast.protectors:
            across, along = protector.x - parasite.x, protector.z - parasite.z
            if across * across + along * along < ATTACK_RANGE * ATTACK_RANGE:
                parasite.health -= seconds
        if parasite.kind == "combat" and isinstance(victim, Protector):
            victim.health -= seconds
    cast.parasites = [parasite for parasite in cast.parasites if parasite.health > 0]
    standing = [protector for protector in cast.protectors if protector.health > 0]
    fallen = len(cast.protectors) - len(standing)
    cast.protectors = standing
    return fallen
