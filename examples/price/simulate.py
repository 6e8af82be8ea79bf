"""Customers who buy a ride or do not. Prints what was earned.

python simulate.py [--url URL] [--customers N] [--rate N] [--seed N] [--out FILE]

The chance that a customer buys falls with the price, the later the more people want a ride and the fewer drivers there
are. Neither the server nor Tandem knows how. Since this program does, it can say what the best prices would earn.
"""

import argparse
import json
import math
import random
import time

from tandem.client import Client

LOWEST, HIGHEST = 5.0, 25.0


class World:
    """Customers. The same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def moment(self):
        """Demand and drivers, from 0 to 1."""
        return [round(self.random.random(), 3), round(self.random.random(), 3)]

    @staticmethod
    def chance(moment, price):
        """The chance that the customer buys at a price."""
        demand, drivers = moment
        worth = 9 + 10 * demand - 4 * drivers
        return 1 / (1 + math.exp((price - worth) / 1.5))

    def earns(self, moment, price):
        """What a price earns on average."""
        return price * self.chance(moment, price)

    def best(self, moment):
        """The best price, to a tenth."""
        prices = [LOWEST + number / 10 for number in range(round(10 * (HIGHEST - LOWEST)) + 1)]
        return max(prices, key=lambda price: self.earns(moment, price))

    def buys(self, moment, price):
        """True if this customer buys."""
        return self.random.random() < self.chance(moment, price)


class Server:
    """A Tandem server that sets prices."""

    def __init__(self, url):
        self.server = Client(url)

    def price(self, moment):
        """A price, and the decision's id."""
        decision = self.server.decide(moment)
        return decision.action[0], decision.id

    def reward(self, decision_id, value):
        """What the price earned."""
        self.server.reward(decision_id, value)


def play(server, world, customers, pause=lambda: None):
    """A row for each customer: the price, the best one, what it earns on average, and what the best one would."""
    rows = []
    for _ in range(customers):
        moment = world.moment()
        price, decision_id = server.price(moment)
        server.reward(decision_id, price if world.buys(moment, price) else 0.0)
        best = world.best(moment)
        rows.append((price, best, world.earns(moment, price), world.earns(moment, best)))
        pause()
    return rows


def share(rows):
    """What was earned of what the best prices would have earned."""
    return sum(row[2] for row in rows) / sum(row[3] for row in rows)


def best_fixed():
    """What the best single price for all moments would earn of what the best prices would."""
    world, steps = World(0), [(number + 0.5) / 20 for number in range(20)]
    moments = [(demand, drivers) for demand in steps for drivers in steps]
    most = sum(world.earns(moment, world.best(moment)) for moment in moments)
    prices = [LOWEST + number / 4 for number in range(round(4 * (HIGHEST - LOWEST)) + 1)]
    return max(sum(world.earns(moment, price) for moment in moments) for price in prices) / most


def main():
    parser = argparse.ArgumentParser(description="Customers.")
    parser.add_argument("--url", default="http://127.0.0.1:8043")
    parser.add_argument("--customers", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=200.0, help="customers a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="a file for what each price earned, as JSON")
    options = parser.parse_args()
    rows = play(Server(options.url), World(options.seed), options.customers, lambda: time.sleep(1 / options.rate))
    for start in range(0, len(rows), 500):
        print(f"customers {start + 1:>5} to {start + len(rows[start:][:500]):>5}: {share(rows[start:][:500]):.3f}")
    print(f"one price for everybody, the best: {best_fixed():.3f}")
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main()
