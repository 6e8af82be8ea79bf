"""What `pip install .` installs."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_every_module_and_data_file(tmp_path: Path) -> None:
    """Each module, page and marker file of src/ is in the wheel under `tandem/`, and nothing else is."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone / name)
    shutil.copytree(ROOT / "src", clone / "src", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q",
         "--wheel-dir", str(tmp_path), str(clone)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    packed = {name.removeprefix("tandem/") for name in names if name.startswith("tandem/")}
    sources = {str(path.relative_to(clone / "src")) for path in (clone / "src").rglob("*") if path.is_file()}
    assert packed == sources
    assert "tandem = tandem.supervisor.__main__:main" in entries


def pinned(name: str) -> set[str]:
    """The packages that a lock file pins, in lower case."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line.partition("==")[0].lower() for line in lines if "==" in line}


def test_a_clone_gets_every_extra() -> None:
    """requirements.lock pins what the core and every extra but `bench` need; the tests' lock file repeats none."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = setup["options"]["install_requires"].splitlines()
    for extra, packages in setup["options.extras_require"].items():
        if extra != "bench":
            wanted += packages.splitlines()
    names = {re.split("[<>=!]", line)[0].lower() for line in wanted if line}
    assert len(names) >= 12
    assert names - pinned("requirements.lock") == set()
    assert pinned("requirements.lock") & pinned("requirements-test.lock") == set()
