"""Who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tandem

SRC = Path(tandem.__file__).parent.resolve()
ROOT = SRC.parent
MODULES = sorted(SRC.rglob("*.py"))
NEVER = {
    "shared": {"inference_proc", "trainer_proc", "supervisor", "queen"},
    "inference_proc": {"trainer_proc", "queen"},
    "trainer_proc": {"inference_proc", "queen"},
    "queen": {"inference_proc", "trainer_proc", "supervisor"},
}


def imported(path: Path, source: str) -> list[str]:
    """Dotted names, relative to the package, of all that a module imports from it; `!name` if not relative."""
    found = []
    package = path.relative_to(SRC).parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            module = (*base, *(node.module.split(".") if node.module else ()))
            found += [".".join((*module, alias.name)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append("!" + node.module)
        elif isinstance(node, ast.Import):
            found += ["!" + alias.name for alias in node.names]
    return found


def violations(path: Path, source: str) -> list[str]:
    """What a module imports and should not."""
    package = path.relative_to(SRC).parts[0]
    never = NEVER.get(package, set())
    own = {"tandem", "src", *(folder.name for folder in SRC.iterdir() if folder.is_dir())}
    found = []
    for name in imported(path, source):
        if name.startswith("!"):
            if name[1:].partition(".")[0] in own:
                found.append(name[1:])
        elif name.partition(".")[0] in never:
            found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_in_one_direction(path: Path) -> None:
    """inference_proc and trainer_proc never import each other, shared imports neither, all imports are relative."""
    assert violations(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("shared/experiences/lane.py", "from ...trainer_proc import guards"),
        ("shared/experiences/lane.py", "from ... import inference_proc"),
        ("inference_proc/engine.py", "from ..trainer_proc.trainer import ContinuousTrainer"),
        ("trainer_proc/trainer.py", "def f():\n    from ..inference_proc.engine import Engine"),
        ("shared/experiences/lane.py", "import tandem.shared.memory.control"),
        ("inference_proc/engine.py", "from ..queen import gate"),
    ],
)
def test_the_direction_test_can_fail(module: str, line: str) -> None:
    """A planted import in the wrong direction is found, also inside a function."""
    assert violations(SRC / module, line)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.relative_to(SRC).parts[0] != "queen"], ids=lambda path: path.name
)
def test_core_code_names_no_application(path: Path) -> None:
    """Only a configuration's default names the bundled application; the core never knows what it decides about."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings
    ]
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    found = [text for text in (*texts, *names) if "queen" in text.lower() or "parasite" in text.lower()]
    allowed = {"tandem.queen"} if path.relative_to(SRC).as_posix() == "shared/configuration/config.py" else set()
    if path.name == "application.py":
        found = [text for text in found if "is not a module name such as" not in text]
    assert set(found) <= allowed


def test_modules_load_once() -> None:
    """No test or program has `src` itself on the path: `shared.x` and `tandem.shared.x` would be two modules."""
    assert str(SRC) not in {str(Path(entry or ".").resolve()) for entry in sys.path}
    with pytest.raises(ModuleNotFoundError):
        __import__("shared")
    for path in (*ROOT.glob("*.cfg"), *ROOT.glob("*.toml"), ROOT / "ctl"):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            assert "pythonpath" not in text.lower() or "pythonpath = src" not in text.lower(), path


def test_the_package_itself_imports_nothing_heavy() -> None:
    """Importing the control segment loads neither torch nor numpy: operators' commands start fast."""
    code = (
        "import sys, tandem.shared.memory.control; print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
