"""`ctl` says when a running instance does not learn, and when it does again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tandem.inference_proc.engine import Engine

from .conftest import Ctl, parsed

LEARNER = '''

import pathlib
from tandem.trainer_proc.learner import PolicyGradient


class Sleepy(PolicyGradient):
    """Puts the weights back after each step, as long as a file is there."""

    def step(self, batch):
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        result = super().step(batch)
        if pathlib.Path(__file__).with_suffix(".asleep").exists():
            with torch.no_grad():
                for parameter, value in zip(self.model.parameters(), before):
                    parameter.copy_(value)
        return result
'''


def test_weights_that_stand_still_are_named_until_they_move(
    ctl: Ctl, toy_application: str, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """`status` exits 1, `check` 2, and both name the reason that `Engine.troubles()` gives; then all is well again."""
    module = tmp_path / "modules" / f"{toy_application}.py"
    module.write_text(module.read_text(encoding="utf-8") + LEARNER, encoding="utf-8")
    asleep = module.with_suffix(".asleep")
    asleep.touch()
    started = ctl.up(
        application=toy_application,
        trainer={"learner": f"{toy_application}:Sleepy", "training_interval": 0.1},
        inference={"command": "none"},
    )
    assert started.returncode == 0, started.stderr
    engine = Engine.attach(ctl.instance)
    try:
        rng = np.random.default_rng(1)

        def play() -> dict[str, Any]:
            for number in range(5):
                engine.decide(f"k{number}", rng.random(4, dtype=np.float32))
                engine.reward(f"k{number}", 1.0)
            engine.beat()
            return ctl.status

        shown = wait_until(lambda: [text for text in play()["reasons"] if "stand still" in text], "it is named")
        assert shown == engine.troubles()
        status = ctl.script("status", "--json")
        assert status.returncode == 1
        assert parsed(status)["state"] == "degraded"
        assert "stand still" in parsed(status)["reasons"][0]
        check = ctl.script("check")
        assert (check.returncode, len(check.stdout.splitlines())) == (2, 1)
        assert "stand still" in check.stdout
        asleep.unlink()
        wait_until(lambda: play()["state"] == "running", "it learns again")
        assert ctl.script("check").returncode == 0
        assert engine.troubles() == []
    finally:
        engine.close()
