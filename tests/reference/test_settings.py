"""The shipped configuration file documents every setting and holds the defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tandem.reference.settings import page
from tandem.shared.configuration.config import Config, load
from tandem.shared.configuration.settings import keys

FILE = Path(__file__).parents[2] / "configs" / "continuous_training.yaml"


def test_the_file_is_up_to_date() -> None:
    """`python -m tandem.reference.settings > configs/continuous_training.yaml` was run after the last change."""
    assert FILE.read_text(encoding="utf-8") == page()


def test_the_file_holds_every_setting_with_its_default() -> None:
    """Loading the file strictly gives the defaults, and no key is left out."""
    assert load(FILE) == dataclasses.replace(Config(), folder=str(FILE.parent))
    text = FILE.read_text(encoding="utf-8")
    for key in keys(Config):
        if key != "folder":
            assert f"{key.rpartition('.')[2]}:" in text, key
