"""Visitors who look at the shop's pages and click 1 to 60 s later, or never. Prints what was earned.

python simulate.py [--url URL] [--visits N] [--rate N] [--speed N] [--out FILE]

Each product has a chance of 2 to 30 % to be clicked on, which depends on the visitor's interests; neither the shop nor
Tandem knows how. Since this program does, it can say what the best possible policy would have earned.
"""

import argparse
import heapq
import http.client
import json
import math
import random
import time
from urllib.parse import urlsplit

INTERESTS, PRODUCTS = 12, 20
LOWEST, HIGHEST = 0.02, 0.30
GAIN = 4.0
"""How much the interests matter: the standard deviation of what goes into the logistic curve."""


class Visitors:
    """A world that is the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        scale = GAIN / math.sqrt(INTERESTS)
        self.weights = [[scale * self.random.gauss(0, 1) for _ in range(INTERESTS)] for _ in range(PRODUCTS)]

    def next(self):
        """A visitor's interests, and the chance of a click for each product."""
        interests = [round(self.random.gauss(0, 1), 4) for _ in range(INTERESTS)]
        scores = [sum(w * x for w, x in zip(row, interests, strict=True)) for row in self.weights]
        return interests, [LOWEST + (HIGHEST - LOWEST) / (1 + math.exp(-score)) for score in scores]


class Shop:
    """The shop's two routes, over one connection."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)

    def post(self, path, body=None):
        self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text.decode()}")
        return json.loads(text)


def play(shop, options, products):
    """The visits, in time. For each the chance of a click on what was shown, the mean chance and the best one."""
    visitors, clicks, rows, clicked = Visitors(options.seed), [], [], 0
    began = time.monotonic()
    for number in range(options.visits):
        due = began + number / options.rate
        while clicks and clicks[0][0] <= max(due, time.monotonic()):
            when, page = heapq.heappop(clicks)
            time.sleep(max(0.0, when - time.monotonic()))
            clicked += shop.post(f"/pages/{page}/click")["outcome"] == "counted"
        time.sleep(max(0.0, due - time.monotonic()))
        interests, chances = visitors.next()
        answer = shop.post("/pages", {"interests": interests})
        chance = chances[products.index(answer["product"])]
        rows.append((chance, sum(chances) / PRODUCTS, max(chances)))
        luck, delay = visitors.random.random(), visitors.random.uniform(1, 60) / options.speed
        if luck < chance:
            heapq.heappush(clicks, (time.monotonic() + delay, answer["page"]))
    return rows, clicked, time.monotonic() - began


def share(rows):
    """Clicks of what was shown, of all that the best possible policy would have got."""
    return sum(row[0] for row in rows) / sum(row[2] for row in rows)


def main():
    from catalogue import PRODUCTS as NAMES

    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8041")
    parser.add_argument("--visits", type=int, default=13_000)
    parser.add_argument("--rate", type=float, default=200.0, help="visits in a real second")
    parser.add_argument("--speed", type=float, default=20.0, help="seconds of the shop in a real second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="a file for what each visit earned, as JSON")
    options = parser.parse_args()
    rows, clicked, seconds = play(Shop(options.url), options, NAMES)
    for start in range(0, len(rows), 1000):
        print(
            f"visits {start + 1:>6} to {start + len(rows[start : start + 1000]):>6}: {share(rows[start:][:1000]):.3f}"
        )
    counted = rows[10_000:13_000] or rows[-len(rows) // 4 :]
    by_chance = sum(row[1] for row in counted) / sum(row[2] for row in counted)
    print(
        f"{len(rows)} visits, {clicked} clicks reported, {len(rows) / seconds:.0f} visits/s;"
        f" the last {len(counted)} counted: {share(counted):.3f} of the best possible clicks"
        f" (by chance {by_chance:.3f})"
    )
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump([[round(value, 5) for value in row] for row in rows], file)


if __name__ == "__main__":
    main()
