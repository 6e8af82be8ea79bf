"""What a demonstration changes in the configuration."""

from __future__ import annotations

from pathlib import Path

from tandem.shared.configuration.config import Config, parse
from tandem.supervisor.demo import adapted


def test_a_fast_game_gets_a_fast_gate_and_more_training() -> None:
    """The Queen's times pass with the game, and the steps of a second keep up with its decisions."""
    config = adapted(Config(), 20.0)
    assert config.settings == {"speed": 20.0}
    assert config.trainer.steps_per_interval == 4
    assert adapted(Config(), 1.0).trainer == Config().trainer


def test_what_is_configured_goes_first() -> None:
    """A setting that is not the default stays."""
    plain = {"settings": {"speed": 3.0, "model": "split_head"}, "trainer": {"steps_per_interval": 2}}
    config = adapted(parse(plain, "the test's configuration"), 20.0)
    assert config.settings == {"speed": 3.0, "model": "split_head"}
    assert config.trainer.steps_per_interval == 2


def test_an_application_without_wishes(tmp_path: Path, toy_application: str) -> None:
    """The hook may be missing."""
    config = parse({"application": toy_application}, "the test's configuration", str(tmp_path / "modules"))
    assert adapted(config, 20.0) == config
