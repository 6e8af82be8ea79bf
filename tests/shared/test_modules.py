"""What the name of a module in a configuration means, and what is said if it means nothing or two things."""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tandem.shared.application import load_application
from tandem.shared.errors import ApplicationError
from tandem.shared.learning import load_learner
from tandem.shared.modules import import_beside, is_module_name

CREATE = "def create(settings, folder):\n    return {!r}\n"


@pytest.fixture
def name() -> Iterator[str]:
    """A module name that nobody has; what it loaded and added to the path goes after the test."""
    path, made = [*sys.path], f"lights_{uuid.uuid4().hex[:8]}"
    yield made
    sys.path[:] = path
    for key in [key for key in sys.modules if key.partition(".")[0] == made]:
        del sys.modules[key]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is on the path as site-packages is."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """The folder of a configuration."""
    folder = tmp_path / "beside"
    folder.mkdir()
    return folder


def test_the_file_beside_the_configuration_is_meant(name: str, beside: Path) -> None:
    """It is found without being installed, and so are its own neighbours, an application or a learner alike."""
    (beside / f"{name}_help.py").write_text("value = 7\n", encoding="utf-8")
    (beside / f"{name}.py").write_text(f"from {name}_help import value\nclass Learner: pass\n", encoding="utf-8")
    assert import_beside("application", name, beside).value == 7
    assert load_learner(f"{name}:Learner", beside).__name__ == "Learner"
    del sys.modules[f"{name}_help"]


def test_a_bare_folder_on_the_path_does_not_hide_it(name: str, beside: Path, installed: Path) -> None:
    """A folder without __init__.py, of data for one, is a module to Python; it is not the one that is meant."""
    (installed / name).mkdir()
    (beside / f"{name}.py").write_text(CREATE.format("beside"), encoding="utf-8")
    assert load_application(name, {}, beside) == "beside"


def test_an_installed_module_of_the_same_name_is_named_with_the_file(name: str, beside: Path, installed: Path) -> None:
    """Neither is taken in silence; both places are in the message."""
    (installed / name).mkdir()
    (installed / name / "__init__.py").write_text(CREATE.format("installed"), encoding="utf-8")
    (beside / f"{name}.py").write_text(CREATE.format("beside"), encoding="utf-8")
    for load in (lambda: load_application(name, {}, beside), lambda: load_learner(f"{name}:create", beside)):
        with pytest.raises(ApplicationError) as caught:
            load()
        assert str(beside / f"{name}.py") in str(caught.value)
        assert str(installed / name / "__init__.py") in str(caught.value)
    assert str(beside) not in sys.path


def test_a_copy_of_the_file_is_the_same_module(name: str, beside: Path, installed: Path) -> None:
    """A server that has a copy of its application on its path means what its trainer means."""
    for folder in (beside, installed):
        (folder / f"{name}.py").write_text(CREATE.format("either"), encoding="utf-8")
    assert load_application(name, {}, beside) == "either"


def test_the_same_file_by_two_ways_is_one(name: str, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the configuration may be on the path, as that of a server that embeds the engine is."""
    (beside / f"{name}.py").write_text(CREATE.format("beside"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(beside))
    assert load_application(name, {}, beside.parent / "." / "beside") == "beside"


@pytest.mark.parametrize("taken", ["json", "sys", "random", "yaml", "numpy"])
def test_a_file_of_a_library_s_name_shadows_nothing(taken: str, beside: Path) -> None:
    """The library goes on being the library, and the message names the file."""
    (beside / f"{taken}.py").write_text(CREATE.format("shadow"), encoding="utf-8")
    with pytest.raises(ApplicationError, match=rf"{taken}\.py beside the configuration, but also the module"):
        load_application(taken, {}, beside)
    assert not hasattr(importlib.import_module(taken), "create")


def test_neighbours_shadow_nothing(name: str, beside: Path) -> None:
    """Files beside the application that bear names of the standard library are not imported for it."""
    (beside / "colorsys.py").write_text("shadow = True\n", encoding="utf-8")
    sys.modules.pop("colorsys", None)
    (beside / f"{name}.py").write_text("import colorsys\n" + CREATE.format("beside"), encoding="utf-8")
    load_application(name, {}, beside)
    assert not hasattr(sys.modules["colorsys"], "shadow")


def test_a_folder_is_named_as_one(name: str, beside: Path) -> None:
    """A folder without __init__.py has no function create; the message says why and where it is."""
    (beside / name).mkdir()
    with pytest.raises(ApplicationError, match=r"is a folder without __init__\.py") as caught:
        load_application(name, {}, beside)
    assert str(beside / name) in str(caught.value)


def test_an_installed_package_without_create_is_named_with_its_place(name: str, beside: Path, installed: Path) -> None:
    """It may be another than was meant."""
    (installed / f"{name}.py").write_text("", encoding="utf-8")
    with pytest.raises(ApplicationError, match="create") as caught:
        load_application(name, {}, beside)
    assert str(installed / f"{name}.py") in str(caught.value)


def test_what_lies_in_the_working_folder_only_is_pointed_out(
    name: str, beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder is not searched; the message says that the module was seen there."""
    (tmp_path / f"{name}.py").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    with pytest.raises(ApplicationError, match="working folder") as caught:
        load_application(name, {}, beside)
    assert str(beside) in str(caught.value)


def test_a_file_called_tandem_changes_nothing(beside: Path) -> None:
    """Our own package is meant, whatever a user called a script."""
    (beside / "tandem.py").write_text("raise AssertionError\n", encoding="utf-8")
    assert import_beside("application", "tandem.shared.memory.layout", beside).__name__ == "tandem.shared.memory.layout"


@pytest.mark.parametrize(
    ("text", "good"), [("a.b", True), ("a", True), ("", False), ("a.", False), ("None", False), ("a-b", False)]
)
def test_names_of_modules(text: str, good: bool) -> None:
    """Identifiers with dots between them, no words of the language."""
    assert is_module_name(text) is good
