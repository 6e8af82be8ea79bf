"""What users import: the names of the package itself, and the old places of modules that have moved."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest
import tandem
from tandem.moved import MOVED


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_the_front() -> None:
    """`from tandem import ...` gives what the modules define, and `dir` shows it."""
    from tandem import ActionHead, Application, Engine, Service, Verdict, open_engine
    from tandem.inference_proc.engine import Engine as TheEngine
    from tandem.inference_proc.static import open_engine as the_opener
    from tandem.inference_proc.web.service import Service as TheService
    from tandem.shared import application

    assert (Engine, open_engine, Service) == (TheEngine, the_opener, TheService)
    assert (ActionHead, Application, Verdict) == (application.ActionHead, application.Application, application.Verdict)
    assert set(tandem.__all__) <= set(dir(tandem))
    with pytest.raises(AttributeError, match="'tandem' has no attribute 'Motor'"):
        tandem.Motor  # noqa: B018


def test_the_package_alone_is_cheap() -> None:
    """Importing it loads neither torch nor numpy nor anything else that takes its time."""
    heavy = "{'torch', 'numpy', 'yaml', 'psutil', 'msgspec', 'starlette', 'typing', 'dataclasses', 'asyncio'}"
    done = run(f"import sys\nbefore = set(sys.modules)\nimport tandem\nprint({heavy} & (set(sys.modules) - before))")
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_place_works_and_warns(old: str) -> None:
    """The same objects under the old name; the warning names the new place and points at the import."""
    sys.modules.pop(f"tandem.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"tandem.{MOVED[old]} now") as caught:
        was = importlib.import_module(f"tandem.{old}")
    found = importlib.import_module(f"tandem.{MOVED[old]}")
    own = [name for name in vars(found) if not name.startswith("__")]
    assert own
    assert all(vars(was)[name] is vars(found)[name] for name in own)
    assert "importlib" in caught[0].filename
    del sys.modules[f"tandem.{old}"]


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("from tandem.shared.experience import Experience as E", "tandem.shared.experiences.experience.Experience"),
        ("from tandem.inference_proc.server import Service as E", "tandem.inference_proc.web.service.Service"),
        ("from tandem.shared.weights import FlatModel as E", "tandem.shared.weights.flat_model.FlatModel"),
    ],
)
def test_the_warning_points_at_the_import(line: str, same: str) -> None:
    """At the line of whoever imports, not at the machinery in between."""
    module, _, name = same.rpartition(".")
    code = (
        f"import warnings; warnings.simplefilter('always')\n\n{line}\nfrom {module} import {name} as T\nassert E is T"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "<string>:3: DeprecationWarning: tandem." in done.stderr


def test_what_stayed_does_not_warn() -> None:
    """The places that the pages named before and that are still right."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in (
            "inference_proc.engine",
            "inference_proc.static",
            "shared.application",
            "shared.instance",
            "shared.replay",
            "trainer_proc.learner",
            "trainer_proc.trainer",
        ):
            importlib.import_module(f"tandem.{name}")


def test_an_old_module_runs() -> None:
    """`python -m` with an old name runs the module where it is now."""
    words = [sys.executable, "-W", "default", "-m", "tandem.shared.config_page"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Every setting of an instance")
    assert "tandem.reference.settings now" in done.stderr


def test_a_name_that_never_was_is_not_found() -> None:
    """Only what has moved is found."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tandem.shared.never")
