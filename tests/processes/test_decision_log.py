"""A decision log whose writer and server are killed while it is written: whole, nothing twice, every gap counted."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from proof import figure, size
from tandem import ActionHead, Application
from tandem.evaluation.log.folder import LogSchema, read_log, write_segment
from tandem.shared.instance import Instance

from .conftest import Ctl

TRAFFIC = """
import os, time
from tandem import ActionHead, Application, Engine

def create(settings, folder):
    return Application("lights", ("east", "north"), (ActionHead("light", 3),))

if __name__ == "__main__":
    engine = Engine.attach(os.environ["TANDEM_INSTANCE"])
    engine.mark_ready()
    turn = 0
    while True:
        turn += 1
        decision = engine.decide(None, [turn % 7, os.getpid() % 1000])
        engine.reward_decision(decision.id, turn % 5)
        if turn % 50 == 0:
            engine.beat()
            time.sleep(0.02)
"""


@pytest.mark.timeout(900)
def test_a_log_survives_the_deaths_of_its_writer_and_of_the_server(
    ctl: Ctl, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """The ring is so small that decisions are overwritten while no trainer lives: those are missing, and counted."""
    (tmp_path / "logged_lights.py").write_text(TRAFFIC, encoding="utf-8")
    started = ctl.up(
        application="logged_lights",
        inference={"command": f"{sys.executable} {tmp_path / 'logged_lights.py'}", "lanes": 1},
        trainer={"buffer_capacity": 500, "training_interval": 0.5},
        decision_log={"enabled": True, "segment_bytes": 100_000},
        supervisor={"max_restarts": 1000, "backoff_limit": 0.2},
    )
    assert started.returncode == 0, started.stderr
    instance = Instance(ctl.instance)
    control = instance.control
    kills = size(2, 20)
    for _ in range(kills):
        for name in ("trainer", "inference"):
            before = control.get("metrics.logged")
            wait_until(lambda seen=before: control.get("metrics.logged") > seen + 200, "decisions are logged", 60)
            victim = ctl.status[name]["pid"]
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda name=name, old=victim: (
                    ctl.status[name]["pid"] not in (None, old) and ctl.status[name]["state"] == "running"
                ),
                "it is replaced",
                60,
            )
    assert ctl("pause").returncode == 0
    server = ctl.status["inference"]["pid"]
    os.kill(server, signal.SIGSTOP)
    # The log is written on while training is paused.
    total = control.get("lane.0.head")
    folder = instance.data_dir / "decisions"
    wait_until(lambda: len(read_log(folder)[1]) + control.get("metrics.unlogged") >= total, "all is logged", 30)
    time.sleep(0.5)
    missing = control.get("metrics.unlogged")
    os.kill(server, signal.SIGCONT)
    _, records = read_log(folder)
    records = records[records["ticket"] <= np.sort(records["ticket"])[total - missing - 1]]
    assert len(records) == total - missing
    assert len(np.unique(records["ticket"])) == len(records), "a decision is there twice"
    assert set(records["observation"][:, 0]) == set(range(7))
    assert ((records["actual_reward"] >= 0) & (records["actual_reward"] < 5)).all()
    assert 0 < missing < total
    figure(49, f"{len(records):,} decisions in {kills} kills each of trainer and server: 0 torn, 0 twice, "
           f"{missing:,} overwritten and all of them counted")  # fmt: skip
    control.close()


def test_an_export_is_read_by_other_programs(ctl: Ctl, tmp_path: Path) -> None:
    """numpy and Parquet hold the same decisions, one row each; a name of another kind is refused."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rng = np.random.default_rng(1)
    application = Application("lights", ("east", "north"), (ActionHead("light", 3),))
    schema = LogSchema.of(application)
    records = np.zeros(50, schema.layout.record)
    records["ticket"] = np.arange(1, 51)
    records["timestamp"] = np.arange(50)
    records["observation"] = rng.normal(size=(50, 2))
    records["action"][:, 0] = rng.integers(3, size=50)
    records["decision"] = 1
    records["key"] = b"k\xc3\xa9"
    records["actual_reward"] = rng.normal(size=50)
    write_segment(tmp_path / "log", schema, records, "a")
    for name in ("all.npy", "all.parquet"):
        made = ctl("decision-log", "export", "--log", "log", "--to", name)
        assert made.returncode == 0, made.stderr
        assert "50 decisions" in made.stdout
    table = parquet.read_table(tmp_path / "all.parquet")
    assert isinstance(table, pyarrow.Table)
    assert table["action.light"].to_pylist() == records["action"][:, 0].tolist()
    assert table["observation"].to_pylist() == records["observation"].tolist()
    assert set(table["key"].to_pylist()) == {"ké"}
    assert set(table["decision"].to_pylist()) == {"SEND"}
    assert np.load(tmp_path / "all.npy")["actual_reward"].tolist() == records["actual_reward"].tolist()
    refused = ctl("decision-log", "export", "--log", "log", "--to", "all.txt")
    assert refused.returncode == 1
    assert "must end in .parquet or .npy" in refused.stderr
    nothing = ctl("decision-log", "export", "--to", "all.npy")
    assert nothing.returncode == 1
    assert "is no log of decisions" in nothing.stderr
