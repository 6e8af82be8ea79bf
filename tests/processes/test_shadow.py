"""An instance whose configuration lies among files that bear names of the standard library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from .conftest import Ctl

NAMES = (
    "abc",
    "argparse",
    "json",
    "logging",
    "queue",
    "random",
    "signal",
    "socket",
    "token",
    "types",
    "typing",
    "uuid",
)


def test_an_instance_among_shadows_serves_at_an_ipv6_address(
    ctl: Ctl, toy_application: str, wait_until: Callable[..., Any]
) -> None:
    """Supervisor, creator, trainer and bundled server import the standard library, and the application's module from
    beside the configuration, never another file there. The address that `up` prints for `host: "::1"` answers."""
    source = Path(ctl.folder / "modules" / f"{toy_application}.py")
    (ctl.folder / "beside.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    for name in NAMES:
        (ctl.folder / f"{name}.py").write_text(f"raise SystemExit('shadow {name}')\n", encoding="utf-8")
    started = ctl.up(application="beside", inference={"host": "::1"})
    assert started.returncode == 0, started.stderr
    url = next(word for word in started.stdout.split() if word.endswith("/dashboard")).removesuffix("/dashboard")
    assert url.startswith("http://[::1]:")
    health = httpx.get(f"{url}/health", trust_env=False).json()
    assert health["status"] == "healthy", health
    assert ctl("down").returncode == 0


def test_two_modules_of_the_applications_name_are_refused_by_up(ctl: Ctl) -> None:
    """One line names the file beside the configuration and the other module; nothing is left."""
    (ctl.folder / "json.py").write_text("def create(settings, folder): raise SystemExit\n", encoding="utf-8")
    refused = ctl.up(application="json")
    assert refused.returncode == 1
    assert f"{ctl.folder / 'json.py'} beside the configuration" in refused.stderr
