"""A disk that takes no more: everything goes on deciding and learning, and says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import psutil
from server_kit import ask, browser_observation
from websockets.sync.client import connect

from .conftest import Ctl


def test_a_full_disk_stops_nobody(ctl: Ctl, wait_until: Callable[..., Any]) -> None:
    """No file of any of the three processes may grow: decisions and training go on, checkpoints fail and are counted,
    `/health` says so; with room again they are saved, and nothing was restarted."""
    (ctl.folder / "simulation_gate.yaml").write_text("{}", encoding="utf-8")
    started = ctl.up()
    assert started.returncode == 0, started.stderr
    url = ctl.status["url"]
    processes = {name: psutil.Process(ctl.status[name]["pid"]) for name in ("supervisor", "trainer", "inference")}

    def health() -> dict[str, Any]:
        body: dict[str, Any] = httpx.get(f"{url}/health", trust_env=False).json()
        return body

    with connect(url.replace("http", "ws") + "/ws", proxy=None) as client:

        def decides() -> int:
            reply = ask(client, browser_observation())
            assert reply["type"] in ("spawn_decision", "no_action"), reply
            return int(reply["data"]["modelVersion"])

        wait_until(lambda: decides() > 3, "versions are published and used")
        wait_until(lambda: health()["status"] == "healthy", "all is well")
        for process in processes.values():
            # As root a read-only folder is no obstacle, and a full file system cannot be had without one's own.
            process.rlimit(psutil.RLIMIT_FSIZE, (1024, psutil.RLIM_INFINITY))
        assert ctl.script("checkpoint").returncode == 1
        body = wait_until(lambda: health() if health()["status"] == "degraded" else None, "the reason is reported")
        assert any("could not be saved" in reason for reason in body["reasons"]), body
        full = decides()
        wait_until(lambda: decides() > full + 5, "training goes on")
        for process in processes.values():
            process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        saved = ctl.script("checkpoint")
        assert saved.returncode == 0, saved.stderr
        wait_until(lambda: health()["status"] == "healthy", "it is well again")
        decides()
    status = ctl.status
    assert {name: status[name]["pid"] for name in processes} == {name: item.pid for name, item in processes.items()}
    leftover = [path.name for path in (ctl.folder / "data" / ctl.instance / "checkpoints").iterdir()]
    assert not [name for name in leftover if name.startswith(".")], "half a checkpoint is left"
