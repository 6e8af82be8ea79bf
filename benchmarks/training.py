"""What a training step costs besides the mathematics: `python benchmarks/training.py [--json] [--model split_head]`.

Three things take turns in one process, one thread, batches of 32; ratios are medians over the rounds.

| arm | does |
|---|---|
| `bare` | forward, policy-gradient loss, backward, Adam step, on ready tensors and on separate parameters |
| `learner` | the default learner's step on ready tensors: baseline, importance weights, entropy, clipping besides |
| `step` | the trainer's whole step: sample from shared memory, rewards, learner, publish guard, publish, metrics |
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from _kit import bench_instance, machine, observations
from tandem.inference_proc.engine import Engine
from tandem.shared.instance import Instance
from tandem.shared.learning import Batch, build_learner, make_batch, training_rewards
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.trainer import ContinuousTrainer


def fill(instance: str, decisions: int) -> None:
    """Let an engine decide on observations of simulated worlds."""
    engine = Engine.attach(instance)
    for key, observation in observations(decisions):
        engine.decide(key, observation)
    engine.close()


def bare_step(model: torch.nn.Module, batch: Batch, rate: float) -> Callable[[], None]:
    """The least that trains: plain parameters, plain Adam."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        log_probability = torch.zeros_like(batch.rewards)
        for head, logits in enumerate(model(batch.observations)):
            log_head = torch.log_softmax(logits, dim=1)
            log_probability = log_probability + log_head.gather(1, batch.actions[:, head : head + 1]).squeeze(1)
        loss = -(batch.rewards * log_probability).mean()
        loss.backward()
        optimiser.step()

    return step


def run(rounds: int, steps: int, model: str) -> dict[str, Any]:
    """Milliseconds of each arm, and their ratios."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with bench_instance(settings={"model": model} if model else {}, inference={"seed": 1}, trainer={"seed": 1}) as name:
        fill(name, 2000)
        instance = Instance(name)
        trainer = ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=1))
        config = trainer.config
        rows = trainer.buffer.reader.sample(config.batch_size)
        batch = make_batch(rows, training_rewards(rows, config), torch.device("cpu"))
        own = instance.application.build_model()
        learner = build_learner(own, instance.application.heads, config)
        arms: dict[str, Callable[[], Any]] = {
            "bare": bare_step(instance.application.build_model(), batch, config.learning_rate),
            "learner": lambda: learner.step(batch),
            "step": trainer.train_step,
        }
        for act in arms.values():
            for _ in range(20):
                act()
        taken: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(rounds):
            for arm, act in arms.items():
                each = []
                for _ in range(steps):
                    started = time.perf_counter()
                    act()
                    each.append((time.perf_counter() - started) * 1e3)
                taken[arm].append(statistics.median(each))
        instance.control.close()
    pairs = (("learner", "bare"), ("step", "bare"), ("step", "learner"))
    return {
        "unit": "ms",
        "model": model or "default",
        "arms": {arm: round(statistics.median(values), 3) for arm, values in taken.items()},
        "ratios": {
            f"{above}_over_{below}": round(
                statistics.median(a / b for a, b in zip(taken[above], taken[below], strict=True)), 3
            )
            for above, below in pairs
        },
        "machine": machine(),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=30, help="of one arm in a round")
    parser.add_argument("--model", default="", help="the Queen's model (default: its own default)")
    options = parser.parse_args()
    result = run(options.rounds, options.steps, options.model)
    if options.json:
        print(json.dumps(result))
    else:
        print("  ".join(f"{arm} {value:.3f} ms" for arm, value in result["arms"].items()))
        print("  ".join(f"{name} {value:.2f}" for name, value in result["ratios"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
