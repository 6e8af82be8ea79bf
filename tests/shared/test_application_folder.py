"""Where an application's module is looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tandem.shared.application import load_application
from tandem.shared.errors import ApplicationError


def test_a_module_beside_the_configuration_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be installed; a file of the name of a library shadows nothing and is refused by name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "application_beside", raising=False)
    (tmp_path / "application_beside.py").write_text(
        "def create(settings, folder):\n    return folder\n", encoding="utf-8"
    )
    (tmp_path / "json.py").write_text("raise AssertionError('it shadows nothing')\n", encoding="utf-8")
    assert load_application("application_beside", {}, tmp_path) == tmp_path
    monkeypatch.delitem(sys.modules, "application_beside")
    with pytest.raises(ApplicationError, match=r"json\.py beside"):
        load_application("json", {}, tmp_path)
