"""What `pip install .` installs."""

from __future__ import annotations

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
