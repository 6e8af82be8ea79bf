"""What both sides of the simulated world own: the Queen's energy, the player's energy and minerals."""

from __future__ import annotations

from dataclasses import dataclass

QUEEN_MAX = 100.0
QUEEN_REGENERATION = 3.0
MINED_ENERGY = 0.35
MINED_MINERALS = 0.25
SPENDING = 0.03
DRAIN = 4.0
PROTECTOR_PRICE = 12.0


@dataclass(slots=True)
class Economy:
    """Stockpiles and their rates per second.

    The player spends a fixed share of what is there, so that stocks settle where mining balances spending and a
    window of lost mining or of drain shows in them.
    """

    queen: float = 50.0
    energy: float = 80.0
    minerals: float = 60.0

    def step(self, mining: int, draining: int, seconds: float) -> None:
        """Let time pass with so many workers mining and so many parasites draining."""
        self.queen = min(QUEEN_MAX, self.queen + QUEEN_REGENERATION * seconds)
        change = mining * MINED_ENERGY - self.energy * SPENDING - draining * DRAIN
        self.energy = max(0.0, self.energy + change * seconds)
        change = mining * MINED_MINERALS - self.minerals * SPENDING
        self.minerals = max(0.0, self.minerals + change * seconds)

    def pay_parasite(self, cost: float) -> bool:
        """Charge the Queen; False and no charge if she has too little."""
        if self.queen < cost:
            return False
        self.queen -= cost
        return True

    def pay_protector(self) -> bool:
        """Charge the player for a new protector; False and no charge if it is too much."""
        if self.energy < PROTECTOR_PRICE:
            return False
        self.energy -= PROTECTOR_PRICE
        return True
