"""`GET /metrics`: what Prometheus reads."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_kit import ask, browser_observation
from tandem.reference.metrics import BEGIN, END, tables
from tandem.shared.telemetry.metric_families import FAMILIES, OUTCOMES

parser = pytest.importorskip("prometheus_client.parser")

ROOT = Path(__file__).parents[4]


def scrape(server: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples of one scrape by name and labels."""
    response = server.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def total(samples: dict[Any, float], family: str, /, **labels: str) -> float:
    """Sum of the samples of this metric that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in samples.items() if found == family and wanted <= set(has))


def test_every_family_is_there_with_help(server: Any) -> None:
    """A scrape shows every documented metric, each with a help text and its type."""
    text = server.get("/metrics").text
    for family in FAMILIES:
        assert f"# HELP {family.shown} {family.help}" in text
        kind = "gauge" if family.kind == "info" else family.kind
        assert f"# TYPE {family.shown} {kind}" in text


def test_values_are_those_of_shared_memory(server: Any) -> None:
    """Decisions, durations and conservation counters are the control segment's, and they add up."""
    with server.connect() as client:
        for energy in (100.0, 0.0, 100.0):
            ask(client, browser_observation(queen=energy))
    samples, lane = scrape(server), server.engine.control.lane(server.engine.lane.index)
    assert total(samples, "tandem_decisions_total", gate="send") == lane["send"] > 0
    assert total(samples, "tandem_decisions_total", gate="wait") == lane["wait"] > 0
    assert total(samples, "tandem_decision_duration_seconds_count") == lane["send"] + lane["wait"]
    assert total(samples, "tandem_decision_duration_seconds_bucket", le="+Inf") == lane["send"] + lane["wait"]
    assert total(samples, "tandem_decision_duration_seconds_sum") == pytest.approx(lane["latency_sum_ns"] / 1e9)
    settled = sum(total(samples, "tandem_experiences_settled_total", outcome=outcome) for outcome in OUTCOMES)
    assert total(samples, "tandem_experiences_decided_total") == settled + total(samples, "tandem_buffer_pending")
    assert total(samples, "tandem_model_version") == server.engine.model_version
    assert total(samples, "tandem_instance_info", name=server.name) == 1
    assert math.isnan(total(samples, "tandem_training_loss")), "nothing was trained yet"


def test_durations_fall_into_their_buckets(server: Any) -> None:
    """A duration is counted in the first bucket whose bound is not below it, and buckets are cumulative."""
    control, lane = server.engine.control, server.engine.lane
    before = scrape(server)
    for nanoseconds in (16_000, 16_001, 40_000, 10**12):
        lane.counters.count_decision(0, 0, nanoseconds)
    after = scrape(server)

    def counted(bound: str) -> float:
        buckets = [total(samples, "tandem_decision_duration_seconds_bucket", le=bound) for samples in (before, after)]
        return buckets[1] - buckets[0]

    assert (counted("1.6e-05"), counted("3.2e-05"), counted("6.4e-05"), counted("+Inf")) == (1, 2, 3, 4)
    assert control.get(f"lane.{lane.index}.latency_23") >= 1


def test_one_scrape_shows_all_server_processes(server: Any) -> None:
    """Decisions that another server process made are in the scrape of this one, under their own lane."""
    lane = server.engine.lane.index
    child = f"""
from tandem.inference_proc.engine import Engine
engine = Engine.attach({server.name!r})
for number in range(7):
    engine.lane.counters.count_decision(0, 1, 1000)
print(engine.lane.index)
engine.close()
"""
    other = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout.strip()
    assert other != str(lane)
    samples = scrape(server)
    assert total(samples, "tandem_decisions_total", lane=other) == 7
    assert total(samples, "tandem_lane_up", lane=str(lane)) == 1
    assert total(samples, "tandem_lane_up", lane=other) == 0, "it is gone; what it counted stays"


def test_open_metrics_on_request(server: Any) -> None:
    """A client that accepts OpenMetrics gets it."""
    response = server.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_without_the_package_it_says_what_to_install(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prometheus_client /metrics answers 501 with one clear line."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    response = server.get("/metrics")
    assert response.status_code == 501
    assert "pip install 'tandem-learning[metrics]'" in response.json()["error"]


def test_the_default_registry_is_left_alone(server: Any) -> None:
    """The metrics stand in a registry of their own: an embedding server's default one does not show them."""
    import prometheus_client

    scrape(server)
    assert b"tandem_" not in prometheus_client.generate_latest()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing(server: Any) -> None:
    """`promtool check metrics` has no complaint."""
    text = server.get("/metrics").text
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_the_documentation_is_up_to_date() -> None:
    """The tables of docs/metrics.md are those that the program prints."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert BEGIN + text.partition(BEGIN)[2].partition(END)[0] + END == tables()
