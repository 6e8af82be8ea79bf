"""`ctl evaluate`: real checkpoints, real decisions, one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.evaluation.log.folder import LogSchema, write_segment
from tandem.inference_proc.engine import Engine
from tandem.shared.durable import SEAL, seal, unseal
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.instance import Instance
from tandem.supervisor import cli

DECISIONS = 1200


@pytest.fixture(name="played")
def played_fixture(toy_instance: Callable[..., Instance]) -> Instance:
    """An instance whose engine decided by chance, and place 4 alone earned something; two checkpoints of it.

    Version 1 goes to place 4, version 2 avoids it.
    """
    instance = toy_instance(trainer={"buffer_capacity": 4096})
    flat = instance.build_model()
    for version, bias in ((1, 1.0), (2, -1.0)):
        with torch.no_grad():
            flat.flat.zero_()
            flat.state()["layer.bias"][4] = bias
        instance.checkpoints().save(version, flat.state(), {}, {})
    engine = Engine.attach(instance.name)
    generator = np.random.default_rng(1)
    for number in range(DECISIONS):
        key = f"k{number % 5}"
        decision = engine.decide(key, generator.random(4).tolist())
        engine.reward(key, float(decision.action[0] == 4 and generator.random() < 0.8))
    engine.close()
    return instance


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = cli.main(["evaluate", *words, "--json"])
    captured = capsys.readouterr()
    assert captured.out, captured.err
    return status, json.loads(captured.out)


def test_the_buffer_of_an_instance_is_evaluated(
    played: Instance, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The checkpoint that goes where rewards are is better than what was logged, its opposite worse."""
    status, found = answer(capsys, "--instance", played.name, "--policy", "1")
    assert (status, found["outcome"], found["decisions"]) == (0, "better", DECISIONS)
    assert found["verdict"].startswith("version 1 is better than what was logged")
    assert found["seen_share"] == 0.0, "it was saved before all of them"
    status, found = answer(capsys, "--instance", played.name, "--policy", "newest", "--against", "1", "--by", "time")
    assert (status, found["outcome"], len(found["parts"])) == (0, "worse", 10)
    picture = tmp_path / "p.png"
    words = ["evaluate", "--instance", played.name, "--policy", "1", "--by", "action", "--plot", str(picture)]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "spawn_chunk 4" in text
    assert text.splitlines()[-1].startswith("version 1 is better")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_of_logged_decisions_is_evaluated(
    played: Instance, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same records from `.npy` files give the same answer, without an instance; a deterministic log gives none."""
    records = ReplayReader(played.control, played.records).recent(DECISIONS)
    schema = LogSchema.of(played.application)
    for half, rows in enumerate(np.array_split(records, 2)):
        write_segment(tmp_path / "log", schema, rows, f"{half}")
    config = tmp_path / "c.yaml"
    data = {"application": played.config.application, "data_dir": str(tmp_path / "data")}
    config.write_text(json.dumps(data), encoding="utf-8")
    checkpoint = played.data_dir / "checkpoints" / f"{1:012d}"
    words = ("--config", str(config), "--policy", str(checkpoint))
    live = answer(capsys, "--instance", played.name, "--policy", "1")[1]
    status, found = answer(capsys, "--log", str(tmp_path / "log"), *words)
    assert status == 0
    assert found["policy"]["estimates"] == live["policy"]["estimates"]
    records["probability"] = 1.0
    write_segment(tmp_path / "certain", schema, records, "0")
    status, found = answer(capsys, "--log", str(tmp_path / "certain"), *words)
    assert (status, found["outcome"]) == (3, "cannot tell")
    assert "never explored" in found["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "77"], "there is no checkpoint of version 77 (there are [1, 2])"),
        (["--policy", "nowhere"], "neither a checkpoint's folder nor a version"),
        (["--policy", "1", "--by", "nonsense"], "nothing called 'nonsense'"),
        (["--policy", "1", "--log", "nowhere"], "is no log of decisions"),
        (["--policy", "1", "--config", "nowhere.yaml"], "no such file"),
    ],
)
def test_what_cannot_be_used_is_named(
    played: Instance, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """One line, and no traceback."""
    assert cli.main(["evaluate", "--instance", played.name, *words]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_log_of_another_application_is_refused(
    played: Instance, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its features are compared with the configuration's."""
    records = ReplayReader(played.control, played.records).recent(10)
    schema = LogSchema("toy", tuple("abce"), played.application.heads)
    write_segment(tmp_path / "log", schema, records, "0")
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"application": played.config.application}), encoding="utf-8")
    words = ["evaluate", "--log", str(tmp_path / "log"), "--config", str(config), "--policy", "1"]
    assert cli.main(words) == 1
    assert "other features" in capsys.readouterr().err


def test_decisions_that_a_checkpoint_may_have_learned_from_are_named(
    played: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was saved after half of the decisions says so, and with `--unseen` stands on the other half."""
    records = ReplayReader(played.control, played.records).recent(DECISIONS)
    folder = played.data_dir / "checkpoints" / f"{1:012d}"
    manifest = unseal((folder / "manifest.json").read_bytes())
    manifest["time"] = float(records["timestamp"][DECISIONS // 2 - 1])
    (folder / "manifest.json").write_bytes(seal({name: manifest[name] for name in manifest if name != SEAL}))
    words = ("--instance", played.name, "--policy", "1")
    assert answer(capsys, *words)[1]["seen_share"] == pytest.approx(0.5, abs=0.01)
    found = answer(capsys, *words, "--unseen")[1]
    assert (found["seen_share"], found["decisions"]) == (0.0, pytest.approx(DECISIONS / 2, abs=10))
    assert cli.main(["evaluate", *words]) == 0
    assert "it may have learned from them" in capsys.readouterr().out
