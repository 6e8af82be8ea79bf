"""In the simulated world: a poisoned version is rolled back by the trainer itself, and the reward comes back."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import torch
from tandem.inference_proc.engine import Engine
from tandem.queen.world import World
from tandem.shared.configuration.config import parse
from tandem.shared.instance import Instance, create_instance
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.trainer import ContinuousTrainer

CONFIGS = Path(__file__).parents[2] / "configs"


class Game:
    """Four worlds that ask the engine, with a tick of the trainer after every decision."""

    def __init__(self, engine: Engine, trainer: ContinuousTrainer) -> None:
        self.engine, self.trainer = engine, trainer
        self.worlds = [World(seed) for seed in range(4)]
        self.scores: list[float] = []

    def play(self, decisions: int, train: bool = True) -> float:
        """The mean score of that many decisions, a blocked one counting 0."""
        for number in range(decisions):
            index = number % len(self.worlds)
            world = self.worlds[index]
            world.advance(15.0)
            decision = self.engine.decide(f"w{index}", world.observation())
            if decision.send:
                world.spawn(decision.action[0], ("energy", "combat")[decision.action[1]])
            sent = decision.last_components is not None and "spawn_gating" not in decision.last_components
            self.scores.append((decision.last_reward or 0.0) if sent else 0.0)
            self.trainer.look()
            if train:
                self.trainer.loop.tick()
        return statistics.fmean(self.scores[-decisions:])


def test_a_poisoned_version_is_rolled_back_and_the_reward_comes_back(instance_name, tmp_path):
    """Weights that halve what decisions earn are replaced by the best kept ones, without anybody's doing."""
    config = parse(
        {
            "settings": {"gate_config": str(CONFIGS / "simulation_gate.yaml")},
            "data_dir": str(tmp_path),
            "trainer": {"seed": 3, "live_guard_window": 120, "live_guard_sigmas": 3.0},
            "inference": {"seed": 3, "lanes": 1},
        },
        "the test's configuration",
    )
    create_instance(instance_name, config)
    engine = Engine.attach(instance_name)
    instance = Instance(instance_name)
    trainer = ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=3))
    game = Game(engine, trainer)
    game.play(160)
    good = game.play(160)
    assert trainer.checkpoint()
    kept = trainer.model_version
    assert trainer._decisions.guard.best_version == kept
    with torch.no_grad():
        # The policy now likes best what it liked least.
        for name, tensor in trainer.flat.state().items():
            if name.startswith("score"):
                tensor.mul_(-3.0)
    poisoned = trainer.model_version + 1
    trainer.candidate.publish(poisoned)
    bad, decisions = [], 0
    while not trainer.control.get("metrics.guard_rollbacks"):
        bad.append(game.play(10, train=False))
        decisions += 10
        assert decisions < 400, f"not rolled back; the score went from {good:.2f} to {np.mean(bad):.2f}"
    assert trainer.control.get("restored_version") == kept
    assert trainer.model_version == poisoned + 1
    after = game.play(160)
    assert after > statistics.fmean(bad) + 0.5 * (good - statistics.fmean(bad))
    assert trainer.control.get("metrics.guard_rollbacks") == 1
    engine.close()
