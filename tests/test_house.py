"""The house: who may import whom, no circles, and no drawer, module, class or function that grows without a reason."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tandem

SRC = Path(tandem.__file__).parent.resolve()
ROOT = SRC.parent
MODULES = sorted(SRC.rglob("*.py"))

ROOMS = {
    "shared.memory": {"shared.errors"},
    "shared.configuration": {"shared.errors"},
    "shared.actions": {"shared.errors", "shared.values"},
    "shared.weights": {"shared.memory", "shared.errors", "shared.durable"},
    "shared.experiences": {
        "shared.memory",
        "shared.configuration",
        "shared.errors",
        "shared.values",
        "shared.rate_limit",
        "shared.application",
    },
    "shared.ids": {"shared.experiences", "shared.memory", "shared.values"},
    "shared.telemetry": {"shared.memory", "shared.errors"},
    "shared.messages": {"shared.errors", "shared.values"},
    "shared.model_checks": {
        "shared.weights",
        "shared.configuration",
        "shared.application",
        "shared.errors",
        "shared.learning",
        "shared.models",
    },
    "shared": {"shared"},
    "inference_proc.web": {"shared", "inference_proc", "__version__"},
    "inference_proc": {"shared", "inference_proc"},
    "trainer_proc": {"shared", "trainer_proc"},
    "supervisor": {"shared", "supervisor"},
    "supervisor.commands.evaluate": {"shared", "supervisor", "evaluation"},
    "supervisor.commands.decision_log": {"shared", "supervisor", "evaluation"},
    "evaluation.log": {"shared", "evaluation.errors", "evaluation.intervals"},
    "evaluation": {"shared", "evaluation"},
    "queen": {"shared", "queen"},
    "supervisor.commands.replay": {"shared", "supervisor", "offline"},
    "offline": {"shared", "trainer_proc", "evaluation.log"},
    "testing": {"shared", "inference_proc", "trainer_proc"},
    "gym": {"shared", "testing"},
    "client": {"shared.errors"},
    "reference": {"shared", "reference"},
}
"""What the modules of a room may import besides the room's own: the longest name that fits counts."""

CLOSED = {
    "inference_proc": ("inference_proc.web", "inference_proc/__main__.py"),
    "inference_proc.web.endpoints": ("inference_proc.web.service", ""),
}
"""What a room must not import although the table would let it, and the one file that may."""

MOST_FILES, MOST_LINES, MOST_ATTRIBUTES, MOST_METHODS, MOST_FUNCTION_LINES, MOST_PARAMETERS = 14, 400, 15, 20, 40, 7
DRAWERS = {"supervisor/commands", "queen"}
"""One file a command; the bundled application is a flat list of its nouns."""

DEFENCES = ("# Long:", "# Many attributes:", "# Many methods:", "# Many parameters:")


def name_of(path: Path) -> str:
    """Dotted name below the package: `shared.memory.control`."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path): path for path in MODULES}


def imported(path: Path, source: str) -> Iterator[str]:
    """Dotted names, below the package, of the modules that a module imports; `!name` if not by a relative import."""
    package = path.relative_to(SRC).parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            module = ".".join((*base, *(node.module.split(".") if node.module else ())))
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                yield inner if inner in NAMES or module not in NAMES else module
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield "!" + node.module
        elif isinstance(node, ast.Import):
            yield from ("!" + alias.name for alias in node.names)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def violations(path: Path, source: str) -> list[str]:
    """What a module imports and should not."""
    name = name_of(path)
    own = {"tandem", "src", *(folder.name for folder in SRC.iterdir() if folder.is_dir())}
    rooms = [room for room in ROOMS if within(name, room)]
    room = max(rooms, key=len) if rooms else ""
    may = {*ROOMS[room], room} if room else {"moved", "shared", "inference_proc"}
    closed = [shut for inside, (shut, but) in CLOSED.items() if within(name, inside) and not within(name, shut)
              and path.relative_to(SRC).as_posix() != but]  # fmt: skip
    found = []
    for other in imported(path, source):
        if other.startswith("!"):
            if other[1:].partition(".")[0] in own:
                found.append(other[1:])
        elif not any(within(other, allowed) for allowed in may) or any(within(other, shut) for shut in closed):
            found.append(other)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_in_one_direction(path: Path) -> None:
    """A room imports only what the table allows, in whatever function, and always by a relative import."""
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
        ("inference_proc/engine.py", "from .web.service import Service"),
        ("inference_proc/web/endpoints/training.py", "from ..service import Service"),
        ("shared/memory/control.py", "from ..experiences.lane import Lane"),
        ("shared/weights/slots.py", "from ..experiences import records"),
        ("shared/telemetry/snapshot.py", "from ..experiences.sampler import ReplayReader"),
        ("queen/protocol.py", "from ..inference_proc.web.service import Service"),
        ("evaluation/estimators.py", "from ..inference_proc.policy import Policy"),
        ("supervisor/commands/status.py", "from ...evaluation import estimators"),
    ],
)
def test_the_direction_test_can_fail(module: str, line: str) -> None:
    """A planted import in the wrong direction is found, also inside a function."""
    assert violations(SRC / module, line)


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports."""
    found = {}
    for name, source in sources.items():
        others = set(imported(NAMES.get(name, SRC / f"{name.replace('.', '/')}.py"), source))
        found[name] = {other for other in others if other in sources and other != name}
    return found


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The modules that import each other, directly or by way of others (what each can reach, and what can reach it)."""
    reach = {name: set(others) for name, others in imports.items()}
    for middle in imports:
        for others in reach.values():
            if middle in others:
                others |= reach[middle]
    rings = {tuple(sorted(o for o in reach[name] if name in reach[o])) for name in imports if name in reach[name]}
    return [list(ring) for ring in sorted(rings)]


def test_no_circles() -> None:
    """No two modules import each other, in whatever function or block."""
    sources = {name: path.read_text(encoding="utf-8") for name, path in NAMES.items() if path.name != "__init__.py"}
    assert circles(graph(sources)) == []


def test_a_circle_is_found() -> None:
    """Also one of three modules, one of whose imports stands in a function."""
    sources = {
        "queen.a": "from .b import x",
        "queen.b": "from . import c",
        "queen.c": "def f():\n    from .a import y",
        "queen.d": "from .a import x",
    }
    planted = {name: SRC / f"{name.replace('.', '/')}.py" for name in sources}
    NAMES.update(planted)
    try:
        assert circles(graph(sources)) == [["queen.a", "queen.b", "queen.c"]]
    finally:
        for name in planted:
            del NAMES[name]


def attributes(node: ast.ClassDef) -> set[str]:
    """Names of what an object of the class carries: annotated fields, and what its methods assign to self."""
    fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
    stored = [
        inner for inner in ast.walk(node) if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
    ]
    own = {inner.attr for inner in stored if isinstance(inner.value, ast.Name) and inner.value.id == "self"}
    return own | {field.id for field in fields if isinstance(field, ast.Name)}


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function takes, without self."""
    places = [*node.args.posonlyargs, *node.args.args]
    others = [*node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
    return len(places) + len(others) - bool(places and places[0].arg in ("self", "cls"))


def too_large(source: str, where: str = "") -> list[str]:
    """Modules, classes and functions beyond the limits that no comment right above them defends."""
    lines = source.splitlines()
    found = [f"{where}: {len(lines)} lines"] if len(lines) > MOST_LINES else []

    def is_defended(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, defence: str) -> bool:
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 2
        while first >= 0 and lines[first].lstrip().startswith("#"):
            if lines[first].lstrip().startswith(defence):
                return True
            first -= 1
        return False

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            # The engine's public methods are what users call: they stay, and only the others are counted.
            counted = [method for method in methods if node.name != "Engine" or method.name.startswith("_")]
            if len(attributes(node)) > MOST_ATTRIBUTES and not is_defended(node, "# Many attributes:"):
                found.append(f"{where}: {node.name} has {len(attributes(node))} attributes")
            if len(counted) > MOST_METHODS and not is_defended(node, "# Many methods:"):
                found.append(f"{where}: {node.name} has {len(counted)} methods")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES and not is_defended(node, "# Long:"):
                found.append(f"{where}: {node.name} has {length} lines")
            if parameters(node) > MOST_PARAMETERS and not is_defended(node, "# Many parameters:"):
                found.append(f"{where}: {node.name} has {parameters(node)} parameters")
    return found


def test_everything_is_small() -> None:
    """What is larger than the limits says why, in a comment right above it."""
    found = [line for path in MODULES for line in too_large(path.read_text(encoding="utf-8"), name_of(path))]
    assert found == []


def test_no_folder_is_a_drawer() -> None:
    """A folder holds at most 14 modules; more is a sign that a noun wants a room of its own."""
    counts: dict[str, int] = {}
    for path in MODULES:
        folder = path.parent.relative_to(SRC).as_posix()
        counts[folder] = counts.get(folder, 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES and folder not in DRAWERS} == {}


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n" * (MOST_LINES + 1),
        "def f(a, b, c, d, e, f, g, h): ...",
        "class A:\n    def f(self, a, b, c, d, e, f, g, *, h): ...",
        "def f():\n" + "    x = 1\n" * MOST_FUNCTION_LINES,
        "class A:\n    def __init__(self):\n" + "".join(f"        self.a{i} = 1\n" for i in range(16)),
        "class A:\n" + "".join(f"    def f{i}(self): ...\n" for i in range(21)),
        "class Engine:\n" + "".join(f"    def _f{i}(self): ...\n" for i in range(21)),
        "# Long: of another thing\ndef f(a, b, c, d, e, f, g, h): ...",
    ],
)
def test_the_test_of_sizes_can_fail(source: str) -> None:
    """What is too large is found."""
    assert too_large(source)


def test_a_defence_is_heard() -> None:
    """The comment stands right above, decorators included, and names the right limit."""
    assert not too_large("# Many parameters: a record's columns.\n@x\ndef f(a, b, c, d, e, f, g, h): ...")


def named_elsewhere() -> dict[str, list[str]]:
    """Modules (patterns) whose tests CONTRIBUTING.md names, and the files that it names."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where the tests of a module are")[2]
    found = {}
    for entry in re.findall(r"^- (.*?)(?=^- |\Z)", page, re.MULTILINE | re.DOTALL):
        modules, files = entry.split(":", 1)
        for name in re.findall(r"`(.*?)`", modules):
            before, _, inner = name.partition("{")
            names = [before + part for part in inner.rstrip("}").split(",")] if inner else [name]
            found.update(dict.fromkeys(names, re.findall(r"`(.*?)`", files)))
    return found


def test_every_module_has_a_test_file() -> None:
    """Of its name, or CONTRIBUTING.md says which takes its place; nothing there is out of date."""
    elsewhere, used = named_elsewhere(), set()
    for path in MODULES:
        module = path.relative_to(SRC).with_suffix("")
        if path.name in ("__init__.py", "__main__.py"):
            continue
        if (ROOT / "tests" / module.parent / f"test_{module.name}.py").exists():
            continue
        fits = [name for name in elsewhere if fnmatch.fnmatch(module.as_posix(), name)]
        assert fits, f"{module} has no test file of its name, and CONTRIBUTING.md does not say where its tests are"
        used.update(fits)
    assert set(elsewhere) == used
    missing = {file for files in elsewhere.values() for file in files if not (ROOT / "tests" / file).is_file()}
    assert missing == set()


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
