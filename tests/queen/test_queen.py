"""The application as the core sees it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.queen import create
from tandem.shared.application import load_application
from tandem.shared.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_parts_fit_together(observe: Any) -> None:
    """Features, heads, model, gate and reward of the application agree on their sizes."""
    application = load_application("tandem.queen", {}, CONFIGS)
    data = observe(mining=[47], queen=60)
    features = application.encode(data)
    assert (features.shape, features.dtype) == ((len(application.features),), np.float32)
    logits = application.build_model()(torch.from_numpy(features)[None])
    assert [tensor.shape[1] for tensor in logits] == [head.size for head in application.heads] == [400, 2]
    assert [head.name for head in application.heads] == ["spawn_chunk", "spawn_type"]
    assert application.heads[1].labels == ("energy", "combat")
    assert application.build_gate is not None
    gate = application.build_gate()
    assert gate.components == application.gate_components
    assert len(gate.evaluate(data, (47, 0), "key", 0).components) == len(gate.components)
    assert application.build_reward is not None
    calculator = application.build_reward()
    assert calculator.context(data).dtype == application.context_dtype == calculator.context_dtype


def test_profile_sets_every_size() -> None:
    """The grid of the gate's file sets the width of the model, and the feature set its input."""
    application = create(
        {"gate_config": "simulation_gate_16.yaml", "feature_set": "v29", "model": "split_head"}, CONFIGS
    )
    model = application.build_model()
    assert application.heads[0].size == 256
    assert sum(parameter.numel() for parameter in model.parameters()) == 10_497


def test_costs_of_the_features_follow_the_gate(observe: Any) -> None:
    """Features and gate read the costs from one place."""
    application = create({"gate_config": "simulation_gate_balance_v2.yaml"}, CONFIGS)
    features = application.encode(observe(mining=[47], queen=60))
    assert features[25:27].tolist() == pytest.approx([7 / 12, 4 / 6])


def test_the_gate_keeps_the_time_of_a_fast_game(observe: Any) -> None:
    """At speed 1,000,000 a chunk is fresh again at once; at the game's own speed it stays spawned into."""
    action, seen = (51, 0), observe(mining=[50], queen=100)

    def bonus_after_a_spawn(speed: float) -> float:
        build = create({"speed": speed}, CONFIGS).build_gate
        assert build is not None
        gate = build()
        gate.sent("a", action)
        time.sleep(0.001)
        return gate.evaluate(seen, action, "a", 0).components[3]

    assert bonus_after_a_spawn(1e6) == pytest.approx(0.2)
    assert bonus_after_a_spawn(1.0) < 0.01


def test_a_gate_file_that_is_missing_is_a_trouble_only_if_it_was_asked_for(tmp_path: Path) -> None:
    """Without a configuration the defaults are meant; a name that leads nowhere is a mistake."""
    assert create({}, tmp_path).troubles() == []
    (reason,) = create({"gate_config": "gate.yaml"}, tmp_path).troubles()
    assert reason.endswith("gate.yaml: cannot be read: No such file or directory")
    (tmp_path / "simulation_gate.yaml").write_text("kill_range: -1", encoding="utf-8")
    (reason,) = create({}, tmp_path).troubles()
    assert "kill_range" in reason


def test_every_bad_setting_is_listed() -> None:
    """Unknown, mistyped and forbidden settings are refused in one message."""
    settings = {"modl": "x", "feature_set": "v30", "presence": 1, "gate_config": 5, "model": ["candidates"], "speed": 0}
    with pytest.raises(ConfigError) as caught:
        create(settings, CONFIGS)
    assert len(caught.value.problems) == len(settings)
    assert "did you mean model?" in str(caught.value)


def test_loading_the_application_does_not_load_torch() -> None:
    """Importing and creating the application leaves torch out until a model is built."""
    code = (
        "import sys, pathlib, tandem.queen as q\n"
        "application = q.create({}, pathlib.Path(sys.argv[1]))\n"
        "assert 'torch' not in sys.modules\n"
        "application.build_model()\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(CONFIGS)], check=True)
