"""Reads handwritten digits, is told only whether it was right, and gets better at it.

python play.py [--images N] [--rate N] [--out FILE]

The last 297 of the 1,797 images are never rewarded: they tell how well it reads what it has not seen.
"""

import argparse
import json
import os
import random
import time

from sklearn.datasets import load_digits
from tandem import Engine

UNSEEN = 297


def play(engine, images, labels, options):
    """Whether each decision was right, in order."""
    chance, right, began, next_beat = random.Random(options.seed), [], time.monotonic(), 0.0
    for number in range(options.images):
        time.sleep(max(0.0, began + number / options.rate - time.monotonic()))
        place = chance.randrange(len(images) - UNSEEN)
        decision = engine.decide(None, images[place])
        right.append(int(decision.action[0] == labels[place]))
        engine.reward_decision(decision.id, right[-1])
        if time.monotonic() >= next_beat:
            engine.beat()
            next_beat = time.monotonic() + 0.5
    return right


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=200.0, help="images in a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="a file for what each image earned, as JSON")
    options = parser.parse_args()
    data = load_digits()
    images = (data.data / 16.0).astype("float32")
    engine = Engine.attach(os.environ.get("TANDEM_INSTANCE", "digits"))
    right = play(engine, images, data.target, options)
    unseen = [engine.decide(None, image).action[0] for image in images[-UNSEEN:]]
    engine.close()
    new = sum(int(a == b) for a, b in zip(unseen, data.target[-UNSEEN:], strict=True)) / UNSEEN
    part = min(500, len(right) // 2)
    first, last = sum(right[:part]) / part, sum(right[-part:]) / part
    print(
        f"{len(right)} images: of the first {part} {first:.2f} were right, of the last {part} {last:.2f},"
        f" of {UNSEEN} never rewarded {new:.2f}"
    )
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(right, file)


if __name__ == "__main__":
    main()
