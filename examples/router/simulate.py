"""Prompts for a router: back ends come and go while it learns. Prints how often the right one answered.

python simulate.py [--url URL] [--prompts N] [--rate N] [--seed N] [--out FILE]

What an answer is worth: its quality, less what it cost and, if the user is in a hurry, how long it took. Neither the
router nor Tandem knows the formula. Since this program does, it can say what the best possible policy would have done.
"""

import argparse
import json
import math
import random
import time

from tandem.client import Client

BACK_ENDS = {
    "small": (0.05, 1.0, 0.25, 0.1),
    "medium": (0.25, 0.7, 0.55, 0.4),
    "large": (0.8, 0.3, 0.9, 0.6),
    "coder": (0.35, 0.6, 0.4, 1.0),
}
"""Price, speed, strength, code."""
NEWCOMER = {"swift": (0.15, 0.9, 0.7, 0.5)}
"""Comes in the middle: better than most, and it was never seen before."""
LEAVES = "medium"


class World:
    """Prompts, and what an answer to them is worth. The same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def prompt(self):
        """Length, difficulty, whether it is about code, and the user's hurry."""
        draw = self.random.random
        return [round(draw(), 3), round(draw(), 3), int(draw() < 0.3), round(draw(), 3)]

    @staticmethod
    def worth(prompt, back_end):
        """What an answer is worth on average."""
        length, difficulty, is_code, hurry = prompt
        price, speed, strength, code = back_end
        skill = (strength + code) / 2 if is_code else strength
        quality = 1 / (1 + math.exp(-6 * (skill - difficulty + 0.1)))
        return quality - price * (0.2 + 0.6 * length) - 0.5 * hurry * (1 - speed)

    def reward(self, prompt, back_end):
        """What one answer turned out to be worth."""
        return self.worth(prompt, back_end) + self.random.gauss(0, 0.1)


class Router:
    """A Tandem server that chooses back ends."""

    def __init__(self, url):
        self.server = Client(url)

    def choose(self, prompt, back_ends):
        """The name of the back end that answers, and the decision's id."""
        candidates = [{"id": name, "features": features} for name, features in back_ends.items()]
        decision = self.server.decide(prompt, candidates=candidates)
        return decision.labels[0], decision.id

    def reward(self, decision_id, value):
        """What the answer was worth."""
        self.server.reward(decision_id, value)


def play(router, world, prompts, pause=lambda: None):
    """Half of the prompts with the first back ends, then one comes and one goes. A row for each prompt: who answered,
    who would have been best, what the answer was worth on average, and what the best one would have been.
    """
    rows, back_ends = [], dict(BACK_ENDS)
    for number in range(prompts):
        if number == prompts // 2:
            back_ends.update(NEWCOMER)
            del back_ends[LEAVES]
        prompt = world.prompt()
        name, decision_id = router.choose(prompt, back_ends)
        router.reward(decision_id, world.reward(prompt, back_ends[name]))
        worth = {other: world.worth(prompt, features) for other, features in back_ends.items()}
        best = max(worth, key=worth.get)
        rows.append((name, best, worth[name], worth[best]))
        pause()
    return rows


def report(rows):
    """The figures of a run."""
    middle = len(rows) // 2
    after = rows[middle:]
    (newcomer,) = NEWCOMER
    soon = after[:500]
    chosen = sum(row[0] == newcomer for row in soon[-250:]) / len(soon[-250:])
    wanted = sum(row[1] == newcomer for row in soon[-250:]) / len(soon[-250:])

    def lost(part):
        return sum(row[3] - row[2] for row in part) / len(part)

    return {
        "lost at first": round(lost(rows[:100]), 3),
        "lost before the change": round(lost(rows[middle - 500 : middle]), 3),
        "lost 250 to 500 after it": round(lost(soon[-250:]), 3),
        "share of the newcomer then": round(chosen, 3),
        "of its share under the best policy": round(chosen / wanted, 3),
        "answers by the one that left": sum(row[0] == LEAVES for row in after),
    }


def main():
    parser = argparse.ArgumentParser(description="Prompts for a router.")
    parser.add_argument("--url", default="http://127.0.0.1:8042")
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=200.0, help="prompts a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="a file for what each answer was worth, as JSON")
    options = parser.parse_args()
    rows = play(Router(options.url), World(options.seed), options.prompts, lambda: time.sleep(1 / options.rate))
    for name, value in report(rows).items():
        print(f"{name:36}{value}")
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main()
