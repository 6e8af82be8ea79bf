"""The configuration: one error for every problem, defaults for what is missing, flat keys of the plan."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tandem.shared.configuration.config import PLAN_KEYS, Config, ContinuousTrainingConfig, load, parse
from tandem.shared.errors import ConfigError


def test_one_error_lists_every_problem_with_path_value_allowed_and_nearest_key(tmp_path: Path) -> None:
    """An unknown key, a wrong type and a value out of range are one message."""
    path = tmp_path / "c.yaml"
    path.write_text("trainer:\n  batch_sise: 3\n  learning_rate: fast\ninference:\n  port: 70000\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    unknown, kind, bound = caught.value.problems
    assert unknown == "trainer.batch_sise: unknown key; did you mean trainer.batch_size?"
    assert kind.startswith("trainer.learning_rate: 'fast' is not a number (allowed: a number, above 0; default")
    assert bound.startswith("inference.port: 70000 is above 65535 (allowed: a whole number, at least 0, at most 65535")
    assert str(path) in str(caught.value)


def test_a_missing_file_means_defaults(tmp_path: Path) -> None:
    """Without a path or a file every setting has its default."""
    assert load(None) == Config()
    missing = load(tmp_path / "none.yaml")
    assert missing.trainer == ContinuousTrainingConfig()
    assert missing.folder == str(tmp_path)
    assert ContinuousTrainingConfig.load(tmp_path / "none.yaml") == ContinuousTrainingConfig()
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path / "none.yaml", must_exist=True)


def test_an_empty_file_means_defaults(tmp_path: Path) -> None:
    """An empty document is one without keys."""
    path = tmp_path / "c.yaml"
    path.write_text("", encoding="utf-8")
    assert load(path).trainer == ContinuousTrainingConfig()


def test_the_defaults_are_those_of_the_plan() -> None:
    """The ten settings of the plan have the plan's names and defaults."""
    plain = ContinuousTrainingConfig().to_dict()
    assert {key: plain[key] for key in PLAN_KEYS} == {
        "training_interval": 1.0,
        "batch_size": 32,
        "min_batch_size": 8,
        "buffer_capacity": 10_000,
        "lock_timeout": 5.0,
        "simulation_reward_weight": 0.3,
        "actual_reward_weight": 0.7,
        "train_on_wait": True,
        "wait_reward_multiplier": 0.5,
        "enabled": True,
    }


def test_flat_keys_of_the_plan_are_the_trainers() -> None:
    """A flat file sets the section `trainer`."""
    config = parse({"batch_size": 64, "enabled": False, "trainer": {"learning_rate": 0.1}}, "test")
    assert (config.trainer.batch_size, config.trainer.enabled, config.trainer.learning_rate) == (64, False, 0.1)


def test_a_key_that_stands_twice_is_refused() -> None:
    """Flat and in the section at once is a problem, not a silent choice."""
    with pytest.raises(ConfigError, match=r"batch_size: stands here and as trainer\.batch_size"):
        parse({"batch_size": 64, "trainer": {"batch_size": 32}}, "test")


@pytest.mark.parametrize(
    ("trainer", "word"),
    [
        ({"training_interval": 0}, "training_interval: 0"),
        ({"batch_size": 0}, "batch_size: 0 is below 1"),
        ({"batch_size": 4}, "min_batch_size: 8 is above batch_size (4)"),
        ({"buffer_capacity": 4}, "min_batch_size: 8 is above buffer_capacity (4)"),
        ({"simulation_reward_weight": 0.5}, "add up to 1.2"),
        ({"simulation_reward_weight": 1.5, "actual_reward_weight": -0.5}, "simulation_reward_weight: 1.5"),
        ({"wait_reward_multiplier": 1.1}, "wait_reward_multiplier: 1.1 is above 1"),
        ({"batch_size": 32.0}, "batch_size: 32.0 is not a whole number"),
        ({"lock_timeout": -1}, "lock_timeout: -1"),
    ],
)
def test_the_plans_bounds_are_checked(trainer: dict[str, object], word: str) -> None:
    """Every bound of the plan is enforced, sums and order between settings included."""
    with pytest.raises(ConfigError) as caught:
        parse({"trainer": trainer}, "test")
    assert word in str(caught.value)


def test_weights_may_miss_one_by_a_hundredth() -> None:
    """0.3 + 0.7 give or take 0.01."""
    parse({"trainer": {"simulation_reward_weight": 0.305, "actual_reward_weight": 0.7}}, "test")


def test_lenient_loading_logs_each_problem_and_takes_defaults(caplog: pytest.LogCaptureFixture) -> None:
    """With strict=False a bad key costs that key only."""
    with caplog.at_level(logging.ERROR):
        config = parse({"trainer": {"batch_size": "x", "learning_rate": 0.1}, "what": 1}, "test", strict=False)
    assert (config.trainer.batch_size, config.trainer.learning_rate) == (32, 0.1)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("content", ["a: [", "\x80", "- 1"])
def test_an_unreadable_file_is_an_error_or_logged(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Strict loading refuses it; the plan's loader logs and takes all defaults."""
    path = tmp_path / "c.yaml"
    path.write_text(content, encoding="latin1")
    with pytest.raises(ConfigError):
        load(path)
    assert load(path, strict=False).trainer == ContinuousTrainingConfig()
    caplog.clear()
    assert ContinuousTrainingConfig.load(path) == ContinuousTrainingConfig()
    assert caplog.records


def test_a_configuration_survives_the_way_through_plain_data() -> None:
    """`to_dict` is what `parse` reads."""
    config = parse({"trainer": {"batch_size": 64}, "settings": {"a": [1]}, "inference": {"lanes": 3}}, "test")
    assert parse(config.to_dict(), "again") == config


def test_the_folder_is_not_a_setting() -> None:
    """A file cannot set where it lies."""
    with pytest.raises(ConfigError, match="folder"):
        parse({"folder": "x"}, "test")


def test_no_floating_point_number_is_read_as_infinite() -> None:
    """YAML's .inf and .nan are refused."""
    for value in (float("inf"), float("nan")):
        with pytest.raises(ConfigError):
            parse({"trainer": {"learning_rate": value}}, "test")


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "trainer: &x {a: *x}\n", "a: 1\n---\nb: 2\n", "trainer:\n\tb: 1\n"])
def test_what_would_be_misread_is_refused_with_its_place(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Strict loading raises it; a lenient one logs it and takes every default."""
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="line"):
        load(path)
    with caplog.at_level(logging.ERROR):
        assert load(path, strict=False).trainer == ContinuousTrainingConfig()
    assert len(caplog.records) == 1


def test_numbers_are_read_as_they_are_meant(tmp_path: Path) -> None:
    """`1e-3` is a number and `0640` is a mode."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "trainer: {learning_rate: 1e-3}\nsupervisor: {mode: 0640}\ninference:\n  host: ::1\n", encoding="utf-8"
    )
    config = load(path)
    assert config.trainer.learning_rate == 0.001
    assert (config.supervisor.mode, config.inference.host) == ("0640", "::1")


def test_workers_bring_their_lanes() -> None:
    """Without `lanes` there is one for each worker, and never fewer than the default."""
    lanes = {count: parse({"inference": {"workers": count}}, "test").inference.lanes for count in (1, 2, 4, 7, 16)}
    assert lanes == {1: 4, 2: 4, 4: 4, 7: 7, 16: 16}
    assert parse({"inference": {"workers": 2, "lanes": 2}}, "test").inference.lanes == 2
    assert parse(parse({"inference": {"workers": 7}}, "test").to_dict(), "again").inference.workers == 7


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"inference": {"workers": 3, "lanes": 2}}, ["inference.lanes: 2", "3 workers", "set inference.lanes to 3"]),
        ({"inference": {"workers": 2, "command": "none"}}, ["inference.workers: 2", "command is 'none'"]),
        ({"inference": {"workers": 0}}, ["inference.workers: 0 is below 1", "at most 16"]),
        ({"inference": {"workers": 17}}, ["inference.workers: 17 is above 16"]),
        ({"inference": {"workers": True}}, ["inference.workers: True"]),
        ({"inference": {"workers": 2}, "enabled": False}, ["inference.workers", "trainer.enabled"]),
    ],
)
def test_workers_that_cannot_be_are_refused_by_name(data: dict[str, object], words: list[str]) -> None:
    """The message says what was asked for and what to set; there is one problem, not two."""
    with pytest.raises(ConfigError) as refused:
        parse(data, "test")
    (problem,) = refused.value.problems
    assert all(word in problem for word in words), problem
