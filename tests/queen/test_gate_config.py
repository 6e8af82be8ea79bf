"""The gate's parameters and their file."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from tandem.queen.gate_config import OBSOLETE, GateConfig, GateConfigFile, load_gate_config, read_gate_config
from tandem.shared.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def write(path: Path, text: str) -> None:
    """Replace the file so that its time stamp surely differs."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))


def test_shipped_file_documents_every_parameter() -> None:
    """The shipped file names every parameter with a comment, and its values are the defaults."""
    path = CONFIGS / "simulation_gate.yaml"
    assert load_gate_config(path) == GateConfig()
    assert set(yaml.safe_load(path.read_text())) == {field.name for field in fields(GateConfig)}
    for field in fields(GateConfig):
        assert re.search(rf"^{field.name}: \S+ +# .+", path.read_text(), re.M), field.name


def test_profiles_change_only_what_they_name() -> None:
    """The profiles differ from the defaults in the grid and in the costs."""
    assert load_gate_config(CONFIGS / "simulation_gate_16.yaml") == GateConfig(chunks_per_axis=16)
    balance = load_gate_config(CONFIGS / "simulation_gate_balance_v2.yaml")
    assert balance == GateConfig(energy_parasite_cost=8, combat_parasite_cost=15)


def test_every_problem_is_listed() -> None:
    """A refused configuration lists all its problems with key and value."""
    data = {
        "kill_range": -1,
        "safe_range": "far",
        "hive_proximity_weight": 1.5,
        "survival_weight": 0.9,
        "energy_parasite_cost": 0,
        "exploration_coefficient": -0.1,
        "exploration_max_time": float("nan"),
        "chunks_per_axis": 20.0,
        "gate_enabled": 1,
        "disruption_mode": "linear",
        "threat_decay": True,
    }
    with pytest.raises(ConfigError) as caught:
        read_gate_config(data, "test")
    for key in data:
        assert any(key in line for line in caught.value.problems), key
    assert len(caught.value.problems) == len(data)


@pytest.mark.parametrize(
    "data",
    [
        {"safe_range": 2.0},
        {"kill_range": 8.0},
        {"survival_weight": 0.42},
        {"chunks_per_axis": 0},
        {"energy_pursuit_range": 0},
        {"ignore_range": 3.0},
        {"reward_threshold": float("inf")},
    ],
)
def test_values_out_of_range_are_refused(data: dict[str, Any]) -> None:
    """Ranges must be ordered and positive, the weights add up to 1 within 0.01, numbers are finite."""
    with pytest.raises(ConfigError):
        read_gate_config(data, "test")


def test_values_at_the_edge_are_taken() -> None:
    """The tolerance of the weights, a kill range of 0 and integers for numbers are allowed."""
    config = read_gate_config({"survival_weight": 0.41, "kill_range": 0, "chunks_per_axis": 1}, "test")
    assert (config.survival_weight, config.kill_range, config.chunks) == (0.41, 0.0, 1)


def test_unknown_and_obsolete_keys_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    """Keys that nobody reads are ignored with a warning; a near miss is pointed out."""
    data = {"kil_range": 3, **dict.fromkeys(OBSOLETE, 1)}
    assert read_gate_config(data, "test") == GateConfig()
    assert len(caplog.records) == 1 + len(OBSOLETE)
    assert "did you mean kill_range?" in caplog.text
    for key in OBSOLETE:
        assert key in caplog.text


@pytest.mark.parametrize(
    "text", [None, "", "kill_range: [", "- 1\n- 2\n", "kill_range: -1\nreward_threshold: 0.1\n", "\x00"]
)
def test_bad_file_at_the_start_means_all_defaults(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    """A missing, empty, broken or invalid file at the start is logged as an error and every default is used."""
    path = tmp_path / "gate.yaml"
    if text is not None:
        path.write_text(text)
    assert GateConfigFile(path).current == GateConfig()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(path) in caplog.text


def test_file_wins_over_the_default(tmp_path: Path, clock: Any) -> None:
    """The value in the file is the one in force."""
    path = tmp_path / "gate.yaml"
    path.write_text("reward_threshold: -2000\n")
    assert GateConfigFile(path, clock).current.reward_threshold == -2000.0


def test_change_is_taken_over_after_the_interval(tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked at once per interval and not more often, and a valid change is swapped in whole."""
    path = tmp_path / "gate.yaml"
    write(path, "reward_threshold: 0.5\nhot_reload_interval: 5.0\n")
    source = GateConfigFile(path, clock)
    looks = []
    stat = os.stat

    def look(target: Any, **options: Any) -> os.stat_result:
        looks.append(target)
        return stat(target, **options)

    write(path, "reward_threshold: 0.1\nkill_range: 1.0\n")
    before = source.current
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", look)
        for _ in range(10):
            source.poll()
        assert source.current is before
        assert not looks
        clock.now += 5.0
        for _ in range(10):
            source.poll()
    assert (source.current.reward_threshold, source.current.kill_range) == (0.1, 1.0)
    assert (before.reward_threshold, before.kill_range) == (0.5, 2.0)
    assert looks.count(path) == 1


@pytest.mark.parametrize("text", ["reward_threshold: high\n", "", "a: [", None])
def test_invalid_change_keeps_the_last_good_one(
    tmp_path: Path, clock: Any, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    """An invalid change or a vanished file leaves the last good configuration, not the defaults; a valid one counts."""
    path = tmp_path / "gate.yaml"
    write(path, "reward_threshold: 0.5\n")
    source = GateConfigFile(path, clock)
    if text is None:
        path.unlink()
    else:
        write(path, text)
    clock.now += 5.0
    source.poll()
    assert source.current.reward_threshold == 0.5
    write(path, "reward_threshold: 0.25\n")
    os.utime(path, (1, 1))
    clock.now += 5.0
    source.poll()
    assert source.current.reward_threshold == 0.25


def test_grid_cannot_change(tmp_path: Path, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A change of the grid is refused with a warning; the rest of that change is taken over."""
    path = tmp_path / "gate.yaml"
    write(path, "chunks_per_axis: 16\n")
    source = GateConfigFile(path, clock)
    write(path, "chunks_per_axis: 20\nreward_threshold: 0.1\n")
    clock.now += 5.0
    source.poll()
    assert asdict(source.current) == asdict(GateConfig(chunks_per_axis=16, reward_threshold=0.1))
    assert "restart" in caplog.text
