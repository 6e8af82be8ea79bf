"""The real Prometheus scrapes a running instance, evaluates the rules and answers the dashboard's queries."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tandem.supervisor.children import process_tree

from .conftest import ROOT, Ctl

pytest.importorskip("prometheus_client")
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")

Wait = Callable[..., Any]


class Prometheus:
    """A Prometheus of the test's own on a free port, with the rules of configs/ speeded up."""

    def __init__(self, folder: Path, target: str) -> None:
        rules = (ROOT / "configs" / "prometheus-alerts.yaml").read_text(encoding="utf-8")
        rules = re.sub(r"\bfor: \w+", "for: 0s", rules)
        rules, count = re.subn(r'(progress_age_seconds\{process="trainer"\} >) 15', r"\1 4", rules)
        assert count == 1
        folder.mkdir()
        (folder / "rules.yaml").write_text(rules, encoding="utf-8")
        scrape = {"job_name": "tandem", "static_configs": [{"targets": [target]}]}
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [scrape],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its HTTP interface; None if it does not answer (yet)."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def answers(self, query: str) -> bool:
        """True if a query has a result."""
        return bool((self.get("query", query=query) or {"result": []})["result"])

    def health(self) -> list[str]:
        """How the evaluation of each rule went."""
        groups = (self.get("rules") or {"groups": []})["groups"]
        return [rule["health"] for group in groups for rule in group["rules"]]

    def alerts(self) -> set[str]:
        """Names of the alerts that fire."""
        data = self.get("alerts") or {"alerts": []}
        return {alert["labels"]["alertname"] for alert in data["alerts"] if alert["state"] == "firing"}

    def close(self) -> None:
        """Stop it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture
def watched(ctl: Ctl, tmp_path: Path) -> Iterator[tuple[Ctl, Prometheus]]:
    """A running instance that nobody replaces when it hangs, and a Prometheus that scrapes it."""
    started = ctl.up(supervisor={"hang_timeout": 300.0})
    assert started.returncode == 0, started.stderr
    prometheus = Prometheus(tmp_path / "prometheus", ctl.status["url"].removeprefix("http://"))
    yield ctl, prometheus
    prometheus.close()


def play(ctl: Ctl) -> None:
    """Let the game make decisions for a moment."""
    url = f"ws{ctl.status['url'][4:]}/ws"
    words = ["-m", "tandem.queen.game_client", "--url", url, "--seconds", "2", "--speed", "60", "--json"]
    subprocess.run([ctl.arguments("status")[0], *words], capture_output=True, check=True)


def test_prometheus_watches_an_instance(watched: tuple[Ctl, Prometheus], wait_until: Wait) -> None:
    """The target is up, the rules load, every query of the dashboard is answered, and the alert of a stalled trainer
    fires when the trainer is stopped and goes when it turns again."""
    ctl, prometheus = watched
    play(ctl)

    wait_until(lambda: prometheus.answers('up{job="tandem"} == 1'), "the target is up", 30)
    wait_until(lambda: prometheus.answers("tandem_model_version > 2"), "the version rises", 30)
    wait_until(lambda: set(prometheus.health()) == {"ok"}, "every rule was evaluated", 30)
    dashboard = json.loads((ROOT / "configs" / "grafana-dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "20s")
            wait_until(lambda query=query: prometheus.answers(query), f"the query {query} is answered", 30)
    assert "TandemTrainerStalled" not in prometheus.alerts()

    trainer = ctl.identity("trainer")
    process_tree.send(trainer, signal.SIGSTOP)
    try:
        wait_until(lambda: "TandemTrainerStalled" in prometheus.alerts(), "the alert fires", 30)
    finally:
        process_tree.send(trainer, signal.SIGCONT)
    wait_until(lambda: "TandemTrainerStalled" not in prometheus.alerts(), "the alert goes", 30)
