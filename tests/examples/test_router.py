"""A router judges a back end that it has never seen by what is known of it, and forgets one that left."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import tandem.testing
from tandem.shared.configuration.config import load

from .conftest import ROOT

FOLDER = ROOT / "examples" / "router"


def module_of(folder: Any, name: str) -> ModuleType:
    """A module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class InProcess:
    """The example's two calls, without a server; training follows every 20 rewards."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.rewards = 0

    def choose(self, prompt: Any, back_ends: dict[str, Any]) -> tuple[str, str]:
        """Who answers, and the decision's id."""
        decision = self.app.decide(None, prompt, candidates=list(back_ends.items()))
        return decision.labels[0], decision.id

    def price(self, moment: Any) -> tuple[float, str]:
        """A price, and the decision's id."""
        decision = self.app.decide(None, moment)
        return decision.action[0], decision.id

    def reward(self, decision_id: str, value: float) -> None:
        """What it earned."""
        self.app.reward_decision(decision_id, value)
        self.rewards += 1
        if self.rewards % 20 == 0:
            self.app.train()


def test_a_newcomer_gets_its_share_and_one_that_left_none() -> None:
    """The README's promises, on half as many prompts, in one process."""
    simulate = module_of(FOLDER, "simulate")
    with tandem.testing.run(module_of(FOLDER, "router").create, seed=1) as app:
        found = simulate.report(simulate.play(InProcess(app), simulate.World(3), 2000))
    assert found["of its share under the best policy"] >= 0.8, found
    assert found["answers by the one that left"] == 0
    assert found["lost 250 to 500 after it"] < 0.5 * found["lost at first"], found


def test_its_configuration_is_one() -> None:
    """The file is read without a problem, and names the application."""
    assert load(FOLDER / "config.yaml").application == "router"
    assert 1000 < (FOLDER / "learning.png").stat().st_size < 60_000
