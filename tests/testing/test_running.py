"""`tandem.testing`: an application in one process that really learns, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tandem.testing
from tandem import ActionHead, Application
from tandem.shared.errors import ApplicationError, ConfigError, TandemError
from tandem.shared.memory.segments import FOLDER, PREFIX

LIGHTS = Application("lights", ("east", "north"), (ActionHead("light", 3, ("red", "green", "blue")),))

USERS_TEST = """
import pytest, tandem.testing
from tandem import ActionHead, Application

def create(settings, folder):
    return Application("lights", ("east", "north"), (ActionHead("light", 3),))

@pytest.fixture
def app():
    with tandem.testing.run(create) as running:
        yield running

def test_it_learns(app):
    for turn in range(300):
        light = turn % 3
        decision = app.decide(None, [light == 0, light == 1])
        app.reward_decision(decision.id, decision.action[0] == light)
        if turn % 50 == 49:
            app.train()
    assert app.probabilities([1, 0])[0][0] > 0.5

def test_each_begins_anew(app):
    assert app.version == 0
"""


def left_over(pid: int = 0) -> list[str]:
    """Names in the folder of shared memory that a process of testing has made."""
    begin = f"{PREFIX}testing-{pid or os.getpid()}-"
    return [name for name in os.listdir(FOLDER) if name.startswith(begin)]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test."""
    yield
    gc.collect()
    assert left_over() == []


def play(app: Any, turns: int, seed: int = 0) -> float:
    """Decide and reward by a rule; the share of right decisions."""
    rng = np.random.default_rng(seed)
    right = 0
    for turn in range(turns):
        observation = rng.normal(size=2)
        decision = app.decide(None, observation)
        best = int(observation[0] > 0) + int(observation[1] > 0)
        right += decision.action[0] == best
        app.reward_decision(decision.id, float(decision.action[0] == best))
        if turn % 25 == 24:
            app.train()
    return right / turns


def test_an_application_learns() -> None:
    """The share of right decisions rises far above chance, the weights have moved, the records say what was earned."""
    with tandem.testing.run(LIGHTS) as app:
        first = app.probabilities([1.0, 1.0])[0]
        play(app, 500)
        assert play(app, 200, seed=1) > 0.8
        assert app.version > 50
        assert app.probabilities([1.0, 1.0])[0][2] > 0.8 > first[2]
        rows = app.records()
        assert len(rows) == 700
        best = (rows["observation"] > 0).sum(axis=1)
        assert ((rows["action"][:, 0] == best) == rows["actual_reward"]).all()


def test_the_same_seed_is_the_same_run() -> None:
    """Decisions, versions and probabilities to the last digit."""
    found = []
    for _ in range(2):
        with tandem.testing.run(LIGHTS, {"trainer": {"steps_per_interval": 2}}, seed=7) as app:
            play(app, 150)
            found.append((app.version, *app.probabilities([0.3, -0.2])[0], *app.records()["action"][:, 0]))
    assert found[0] == found[1]


def test_steps_are_taken_when_told() -> None:
    """Nothing trains by itself; `train(n)` takes n steps, and none without experiences."""
    with tandem.testing.run(LIGHTS) as app:
        assert app.train(5) == 0
        for _ in range(100):
            app.reward_decision(app.decide(None, [1.0, 0.0]).id, 1.0)
        assert app.version == 0
        assert app.train(5) == 5
        assert app.version == 5
        assert app.decide("k", [1.0, 0.0]).version == 5
        assert app.reward("k", 0.5)
        assert float(app.records()[-1]["actual_reward"]) == 0.5


def test_settings_are_those_of_a_file() -> None:
    """Sections as in a configuration; a bad one is named, and nothing is left of the attempt."""
    with tandem.testing.run(LIGHTS, {"inference": {"reward_aggregation": "last"}}) as app:
        decision = app.decide(None, [1.0, 0.0])
        app.reward_decision(decision.id, 1.0, final=False)
        app.reward_decision(decision.id, 0.25)
        assert app.records()["actual_reward"].tolist() == [0.25]
    with pytest.raises(ConfigError, match=r"inference\.lanez"):
        tandem.testing.run(LIGHTS, {"inference": {"lanez": 2}})
    with pytest.raises(ApplicationError, match="not 3"):
        tandem.testing.run(3)  # type: ignore[arg-type]


def test_it_runs_under_an_event_loop_and_in_a_cell_that_is_run_again() -> None:
    """As in a notebook: the loop turns already, and what the cell made before is dropped, not closed."""

    async def cell() -> None:
        namespace: dict[str, Any] = {"LIGHTS": LIGHTS}
        code = "import tandem.testing\napp = tandem.testing.run(LIGHTS)\ndecision = app.decide('k', [1.0, 0.0])"
        for _ in range(2):
            exec(code, namespace)
            gc.collect()
        assert len({name.split(".")[1] for name in left_over()}) == 1
        namespace["app"].close()

    asyncio.run(cell())


def test_a_closed_one_says_so() -> None:
    """`close` may be called twice; whatever is asked afterwards is an error that says what happened."""
    app = tandem.testing.run(LIGHTS)
    app.close()
    app.close()
    for call in (app.train, app.records, lambda: app.decide("k", [1.0, 0.0])):
        with pytest.raises(TandemError, match="closed"):
            call()


def test_an_exception_leaves_nothing() -> None:
    """Nor does an application that cannot be made."""

    def broken() -> Application:
        raise RuntimeError("no such shop")

    with pytest.raises(RuntimeError, match="no such shop"):
        tandem.testing.run(broken)
    with pytest.raises(ZeroDivisionError), tandem.testing.run(LIGHTS):
        raise ZeroDivisionError


def test_a_users_tests_run_and_leave_nothing(tmp_path: Path) -> None:
    """In a pytest of their own, in a folder of their own; a script that ends without `close` leaves nothing either."""
    (tmp_path / "test_lights.py").write_text(USERS_TEST, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lights.py"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "2 passed" in output
    assert left_over(process.pid) == []
    script = USERS_TEST.partition("@pytest")[0] + "app = tandem.testing.run(create)\nprint(app.version)\n"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=240)[0] == "0\n"
    assert left_over(process.pid) == []


def test_what_a_kill_leaves_is_found(tmp_path: Path) -> None:
    """After kill -9 `ctl clean` removes it."""
    script = USERS_TEST.partition("@pytest")[0] + "app = tandem.testing.run(create)\nprint('up', flush=True)\ninput()\n"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    names = {name.split(".")[1] for name in left_over(process.pid)}
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(names) == 1
    clean = [sys.executable, "-m", "tandem.supervisor", "clean", "--instance", *names]
    found = subprocess.run(clean, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert left_over(process.pid) == []
