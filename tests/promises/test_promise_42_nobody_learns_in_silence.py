"""Promise 42: nobody learns without `/health` saying so. Each way is planted in a real instance with a real trainer.

`Engine.troubles()` is what `/health` gives as reasons; `ctl status --json` and `ctl check` are asked as well.
"""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from proof import figure
from tandem.inference_proc.engine import Engine
from tandem.shared.experiences.experience import Experience
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.telemetry.learning_reasons import NAMES, learning_notices, learning_reasons
from tandem.supervisor.commands.check import summary
from tandem.supervisor.display import status
from tandem.trainer_proc.trainer import ContinuousTrainer, TrainerFailed

TICKS = 20

# With more threads than idle cores every small tensor operation waits for the slowest.
torch.set_num_threads(1)

SOURCE = '''
"""A bandit of five places, and learners that do not learn, each in its own way."""
import copy, dataclasses, math
import torch
from tandem.shared.application import ActionHead, Application, Verdict
from tandem.shared.learning import StepResult
from tandem.trainer_proc.learner import PolicyGradient


armed = False
"""Learners that fail do so from when an instance runs: `up` would refuse one that cannot take its first steps."""


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 5)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, observations):
        return (self.layer(observations),)


class Counting(Linear):
    """Writes into a buffer at each training forward."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(8))

    def forward(self, observations):
        if torch.is_grad_enabled():
            self.calls += 1e-4
        return super().forward(observations)


class NotFinite(PolicyGradient):
    def step(self, batch):
        return dataclasses.replace(super().step(batch), loss=math.nan)


class Idle(PolicyGradient):
    """Computes everything and takes no step."""

    def step(self, batch):
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        result = super().step(batch)
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), before):
                parameter.copy_(value)
        return result


class Elsewhere(PolicyGradient):
    """Trains a copy of the model."""

    def __init__(self, model, heads, config):
        super().__init__(copy.deepcopy(model), heads, config)


class Coasts(PolicyGradient):
    """After ten steps no gradient reaches the optimiser any more; its momentum goes on."""

    def __init__(self, model, heads, config):
        super().__init__(model, heads, config)
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: gradient * 0.0 if self.updates > 10 else gradient)


class Spoils(PolicyGradient):
    def step(self, batch):
        result = super().step(batch)
        with torch.no_grad():
            if armed:
                next(self.model.parameters()).fill_(math.nan)
        return result


class Jumps(PolicyGradient):
    def step(self, batch):
        result = super().step(batch)
        with torch.no_grad():
            next(self.model.parameters()).mul_(1e6)
        return result


class Raises(PolicyGradient):
    def step(self, batch):
        if armed:
            raise RuntimeError("planted")
        return super().step(batch)


class Turns(Spoils):
    """Raises and is refused in turn."""

    calls = 0

    def step(self, batch):
        Turns.calls += 1
        if armed and Turns.calls % 2:
            raise RuntimeError("planted")
        return super().step(batch)


class Hiccup:
    """Raises at every second step, and is plain otherwise."""

    calls = 0

    def __init__(self, model, heads, config):
        self.model = model

    def step(self, batch):
        Hiccup.calls += 1
        if armed and Hiccup.calls % 2:
            raise RuntimeError("planted")
        (logits,) = self.model(batch.observations)
        loss = -(batch.rewards * torch.log_softmax(logits, 1).gather(1, batch.actions).squeeze(1)).mean()
        parameters = list(self.model.parameters())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
                parameter -= 0.01 * gradient
        return StepResult(float(loss.detach()), 1.0, 1.0, 0.0)

    def state(self):
        return {}

    def load_state(self, state): ...


class Blocks:
    components = ()

    def evaluate(self, observation, action, key, version):
        return Verdict(False, "blocked", 0.5)

    def sent(self, key, action): ...
    def failed(self, key, action): ...
    def rewarded(self, reward): ...
    def forget(self, key): ...
    def statistics(self): return {}
    def clear(self): ...



def create(settings, folder):
    return Application(
        name="bandit",
        features=tuple("abcd"),
        heads=(ActionHead("place", 5),),
        build_model=Counting if settings.get("counting") else Linear,
        build_gate=Blocks if settings.get("gate") == "blocked" else None,
    )
'''


class Shop:
    """An instance with an engine and a trainer whose ticks the test makes, one after the other."""

    def __init__(self, engine: Engine, trainer: ContinuousTrainer) -> None:
        self.engine = engine
        self.trainer = trainer
        self.rng = np.random.default_rng(3)
        self.made = 0

    def decide(self, key: str = "") -> tuple[str, bool]:
        """One decision under a key of its own; the key, and if it was a good one."""
        self.made += 1
        key = key or f"visitor{self.made}"
        decision = self.engine.decide(key, self.rng.random(4, dtype=np.float32))
        return key, decision.action[0] == 2

    def sell(self, count: int = 20, report: Callable[[bool], bool] = lambda good: True, key: str = "") -> None:
        """Decide `count` times; a decision of which `report(good)` is true gets its reward."""
        for _ in range(count):
            used, good = self.decide(key)
            if report(good):
                self.engine.reward(used, float(good))

    def tick(self) -> None:
        """One turn of the trainer's loop and a beat of the server."""
        self.engine.beat()
        self.trainer.look()
        self.trainer.loop.tick()

    def named(self, act: Callable[[], None] | None = None, ticks: int = TICKS) -> dict[str, int]:
        """The reasons told within `ticks` ticks, `act` before each (default: sell), with the tick that named each."""
        found: dict[str, int] = {}
        for number in range(1, ticks + 1):
            (act or self.sell)()
            with contextlib.suppress(TrainerFailed):
                self.tick()
            for name in learning_reasons(self.trainer.control):
                found.setdefault(name, number)
        return found

    def weights(self) -> bytes:
        """The published weights."""
        return self.trainer.candidate.in_force().numpy().tobytes()


@pytest.fixture
def shop(toy_instance: Callable[..., Any], toy_application: str, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """`shop(learner="Idle", settings={...}, trainer={...}, inference={...})`: a Shop of the module above."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    (tmp_path / "modules" / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    made: list[Shop] = []

    def make(learner: str = "PolicyGradient", trainer: dict[str, Any] | None = None, **sections: Any) -> Shop:
        sections["inference"] = {"pending_capacity": 4096, **sections.get("inference", {})}
        settings = {"learner": f"{name}:{learner}", "buffer_capacity": 4096, **(trainer or {})}
        instance = toy_instance(application=name, trainer=settings, **sections)
        engine = Engine(instance)
        sys.modules[name].armed = True
        made.append(Shop(engine, ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=1))))
        return made[-1]

    yield make
    for item in made:
        item.engine.close()
        item.trainer.buffer.close()
    sys.modules.pop(name, None)


def told_everywhere(shop: Shop, name: str) -> str:
    """The reason's text, which `/health`, `ctl status --json` and `ctl check` all give."""
    text = learning_reasons(shop.trainer.control)[name]
    assert text in shop.engine.troubles()
    shown = status.status(shop.engine.name)
    assert text in shown["reasons"]
    assert shown["state"] == "degraded"
    line, bad = summary(shown, None)
    assert bad
    assert text in line
    return text


@pytest.mark.parametrize(
    ("learner", "options", "name"),
    [
        ("NotFinite", {}, "loss_not_finite"),
        ("Idle", {}, "weights_still"),
        ("Elsewhere", {}, "weights_still"),
        ("Coasts", {}, "weights_still"),
        ("Idle", {"settings": {"counting": True}}, "weights_still"),
        ("PolicyGradient", {"trainer": {"learning_rate": 1e-13}}, "weights_still"),
        ("Spoils", {}, "refused"),
        ("Jumps", {}, "refused"),
        ("Raises", {"trainer": {"max_failures": 3}}, "failing"),
        ("Turns", {}, "failing"),
        ("Turns", {}, "refused"),
        ("PolicyGradient", {"settings": {"gate": "blocked"}, "trainer": {"train_on_wait": False}}, "nothing_sampled"),
    ],
)
def test_promise_42_a_step_that_teaches_nothing_is_named(
    shop: Callable[..., Shop], learner: str, options: dict[str, Any], name: str
) -> None:
    """The learner, the guard or the gate let nothing through: every surface names it within 20 ticks."""
    made = shop(learner, **options)
    before = made.weights()
    found = made.named()
    if learner in ("Idle", "Elsewhere", "Spoils", "Jumps", "Raises", "Turns") and not options.get("settings"):
        assert made.weights() == before, "the plant must keep the weights"
    assert found.get(name, TICKS + 1) <= TICKS, found
    told_everywhere(made, name)
    figure(42, f"{name} ({learner}): named after {found[name]} ticks")


def test_promise_42_decisions_that_are_all_rejected_are_named(shop: Callable[..., Shop]) -> None:
    """Whoever records them has numbers that are not finite, and nothing comes in to learn from."""
    made = shop()
    bad = Experience(np.full(4, np.nan, np.float32), 0, 0, 1.0, "WAIT", 0.0)

    def record() -> None:
        for _ in range(5):
            assert not made.trainer.buffer.add(bad)

    assert made.named(record).get("nothing_sampled", TICKS + 1) <= TICKS
    told_everywhere(made, "nothing_sampled")


def test_promise_42_a_lag_bound_that_leaves_everything_out_is_named(shop: Callable[..., Shop]) -> None:
    """Experiences come in, and all are of versions too old to be trained on."""
    made = shop(trainer={"max_policy_lag": 1})
    made.sell(20)
    made.tick()
    old = made.trainer.buffer.reader.recent(8)
    made.trainer.control.set("version", 1000)

    def replay() -> None:
        with made.engine.lane.hold():
            made.engine.lane._writer.append_many(old)

    assert made.named(replay).get("nothing_sampled", TICKS + 1) <= TICKS
    assert "max_policy_lag" in told_everywhere(made, "nothing_sampled")


def test_promise_42_first_version_above_all_decisions_is_named(shop: Callable[..., Shop]) -> None:
    """A server that never takes the versions after a reset decides for nobody."""
    made = shop()
    made.trainer.control.set("first_version", 10**6)
    assert made.named().get("nothing_sampled", TICKS + 1) <= TICKS
    assert "first_version" in told_everywhere(made, "nothing_sampled")


@pytest.mark.parametrize("way", ["expired", "superseded", "full", "forgotten"])
def test_promise_42_only_successes_reported_is_named(shop: Callable[..., Shop], way: str) -> None:
    """Rewards come for the good decisions only; the others expire, are superseded, pushed out or forgotten."""
    inference = {"expired": {"pending_timeout": 1e-6}, "full": {"pending_capacity": 4}}.get(way, {})
    made = shop(inference=inference)

    def act() -> None:
        made.sell(10, report=lambda good: good, key="one" if way == "superseded" else "")
        if way == "expired":
            made.engine._recorder._next_expiry = 0.0
        if way == "forgotten":
            for key in list(made.engine._recorder._keys):
                made.engine.forget(key)

    assert made.named(act).get("rewards_missing", TICKS + 1) <= TICKS
    assert "report 0" in told_everywhere(made, "rewards_missing")
    made.trainer.watch._clock = lambda: time.monotonic() + 61.0
    assert made.named(lambda: None, ticks=1) == {}, "nobody has decided for a minute"
    made.trainer.watch._clock = time.monotonic
    made.named(lambda: made.sell(20))
    assert learning_reasons(made.trainer.control) == {}, "it goes when every decision is rewarded"


@pytest.mark.parametrize("default", ["none", 0])
def test_promise_42_rewards_for_no_decision_are_named(shop: Callable[..., Shop], default: Any) -> None:
    """They come under other keys: with a default reward it looks as if nobody ever bought anything."""
    made = shop(inference={"default_reward": default})

    def act() -> None:
        made.sell(10, report=lambda good: False)
        for number in range(10):
            made.engine.reward(f"another-{number}", 1.0)
        for key in list(made.engine._recorder._keys):
            made.engine.forget(key)

    found = made.named(act)
    assert found.get("rewards_unmatched", TICKS + 1) <= TICKS
    assert ("rewards_missing" in found) == (default == "none")
    assert "under the key of its decision" in told_everywhere(made, "rewards_unmatched")
    made.named(lambda: made.sell(20))
    assert learning_reasons(made.trainer.control) == {}, "it goes when rewards find their decisions"


def test_promise_42_coupled_training_is_watched_too(shop: Callable[..., Shop]) -> None:
    """Without a trainer process the server itself writes the facts."""
    made = shop("Idle", trainer={"enabled": False})
    made.sell(TICKS)
    made.engine.beat()
    assert list(learning_reasons(made.trainer.control)) == ["weights_still"]
    told_everywhere(made, "weights_still")


def test_a_choice_that_is_never_taken_any_more_is_a_notice(shop: Callable[..., Shop]) -> None:
    """A collapsed policy is shown and degrades nothing; a choice whose situation does not occur is not shown."""
    made = shop(trainer={"learning_rate": 1e-6, "guard_max_jump": 0.0, "guard_min_entropy": 0.0})
    for _ in range(10):
        made.named(lambda: made.sell(50), ticks=1)
    assert learning_notices(made.trainer.control) == []
    layer = made.trainer.flat.model.layer
    layer.bias.data.copy_(layer.bias.new_tensor([0.0, 0.0, -60.0, -60.0, 60.0]))
    # So far collapsed that hardly a gradient is left: that is a reason of its own.
    assert made.named(lambda: made.sell(50)).keys() <= {"weights_still"}
    (notice,) = learning_notices(made.trainer.control)
    assert notice.startswith("4 choice(s) are never taken any more, among them choice 2 of head place")
    shown = status.status(made.engine.name)
    assert shown["notices"] == [notice]
    assert notice not in made.engine.troubles()


def test_a_choice_whose_situation_is_gone_is_no_notice(shop: Callable[..., Shop]) -> None:
    """The policy would still take it where it was taken: the situation does not occur any more, nothing is wrong."""
    made = shop(trainer={"learning_rate": 1e-6, "guard_max_jump": 0.0, "guard_min_entropy": 0.0})
    layer = made.trainer.flat.model.layer
    layer.weight.data.zero_()
    layer.weight.data[1, 0], layer.weight.data[3, 0] = 40.0, -40.0

    def act(sign: float) -> Callable[[], None]:
        def sell() -> None:
            for _ in range(50):
                made.made += 1
                made.engine.decide(f"v{made.made}", np.full(4, sign, np.float32))
                made.engine.reward(f"v{made.made}", 1.0)

        return sell

    made.named(act(1.0))
    made.named(act(-1.0))
    assert learning_notices(made.trainer.control) == []


def test_a_learning_instance_has_no_reason(shop: Callable[..., Shop]) -> None:
    """The control: the same shop with the real learner, through all that is well, gives no reason and no notice."""
    made = shop(trainer={"learning_rate": 0.01})
    assert made.named(lambda: None) == {}, "just started, without traffic"
    assert made.named(lambda: made.sell(2)) == {}, "little traffic"
    before = made.weights()
    assert made.named(ticks=40) == {}, "traffic"
    assert made.weights() != before
    assert made.named(lambda: None) == {}, "idle again"
    assert made.named(lambda: made.sell(20, report=lambda good: False)) == {}, "rewards that take long"
    assert made.named(lambda: made.sell(20, report=lambda good: made.made % 4 != 0)) == {}, "a quarter is missing"
    assert learning_notices(made.trainer.control) == []
    assert not [text for text in made.engine.troubles() if "does not make progress" not in text]


@pytest.mark.parametrize(
    "options",
    [
        {"settings": {"gate": "blocked"}},
        {"learner": "Hiccup"},
        {"trainer": {"max_policy_lag": 3}},
        {"trainer": {"sampling": "prioritized"}},
        {"trainer": {"min_batch_size": 32, "batch_size": 32}},
    ],
)
def test_what_is_well_is_not_named(shop: Callable[..., Shop], options: dict[str, Any]) -> None:
    """A gate that blocks everything and is learned from, hiccups, and bounds that leave enough: no reason."""
    assert shop(**options).named(ticks=30) == {}


def test_a_pause_is_no_reason(shop: Callable[..., Shop]) -> None:
    """What was wrong is told again once training goes on."""
    made = shop("Idle")
    assert "weights_still" in made.named()
    made.trainer.control.set("command.pause", 1)
    assert learning_reasons(made.trainer.control) == {}
    made.trainer.control.set("command.pause", 0)
    assert "weights_still" in learning_reasons(made.trainer.control)


def test_many_given_up_at_once_are_no_habit(shop: Callable[..., Shop]) -> None:
    """A game of a thousand keys that ends, or a reset, is not told as missing rewards."""
    made = shop()
    made.named(lambda: made.sell(20))
    made.sell(1000, report=lambda good: False)
    for key in list(made.engine._recorder._keys):
        made.engine.forget(key)
    assert made.named(lambda: None) == {}


def test_every_reason_has_a_name_that_metrics_know() -> None:
    """The planted ways above cover every name."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in text for name in NAMES)
