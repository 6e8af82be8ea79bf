"""The alerting rules and the Grafana dashboard: they ask for metrics that exist, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tandem.shared.telemetry.metric_families import FAMILIES

CONFIGS = Path(__file__).parents[4] / "configs"
ALERTS = CONFIGS / "prometheus-alerts.yaml"
DASHBOARD = CONFIGS / "grafana-dashboard.json"
HISTOGRAM = ("_bucket", "_sum", "_count")

HEALTHY = {
    'tandem_instance_info{name="a"}': "1x200",
    "tandem_trainer_enabled": "1x200",
    "tandem_trainer_paused": "0x200",
    'tandem_process_progress_age_seconds{process="trainer"}': "0.5x200",
    "tandem_model_version_age_seconds": "1x200",
    "tandem_training_steps_total": "0+60x200",
    "tandem_model_checkpoints_unsaved": "0x200",
    "tandem_training_errors_total": "0x200",
    "tandem_training_refused_total": "0x200",
    "tandem_training_sampled_total": "0+2000x200",
    "tandem_training_actual_reward": " ".join(["0.5", "0.6"] * 100),
    'tandem_buffer_pending{lane="0"}': "3x200",
    'tandem_buffer_pending_capacity{lane="0"}': "1024x200",
    'tandem_buffer_overwritten_total{lane="0"}': "0+300x200",
    'tandem_experiences_settled_total{lane="0",outcome="expired"}': "0+1x200",
    'tandem_experiences_decided_total{lane="0"}': "0+300x200",
    'tandem_decision_errors_total{lane="0"}': "0x200",
    'tandem_decision_duration_seconds_bucket{lane="0",le="0.001"}': "0+300x200",
    'tandem_decision_duration_seconds_bucket{lane="0",le="0.1"}': "0+300x200",
    'tandem_decision_duration_seconds_bucket{lane="0",le="+Inf"}': "0+300x200",
    'tandem_process_state{process="trainer",state="fatal"}': "0x200",
    'tandem_process_restarts_total{process="trainer"}': "0x200",
    'tandem_learning_problem{problem="weights_still"}': "0x200",
    'tandem_learning_problem{problem="rewards_missing"}': "0x200",
    "tandem_learning_choices_abandoned": "0x200",
}
"""Series of an instance that is well, one value a minute."""

FAULTS: dict[str, dict[str, str]] = {
    "TandemTrainerStalled": {'tandem_process_progress_age_seconds{process="trainer"}': "0x150 60+60x50"},
    "TandemTrainingFails": {"tandem_training_steps_total": "0x200", "tandem_training_errors_total": "0+60x200"},
    "TandemNotLearning": {'tandem_learning_problem{problem="weights_still"}': "0x150 1x50"},
    "TandemChoicesAbandoned": {"tandem_learning_choices_abandoned": "0x100 3x100"},
    "TandemOnlySuccessesReported": {'tandem_learning_problem{problem="rewards_missing"}': "0x150 1x50"},
    "TandemTrainingPaused": {"tandem_trainer_paused": "0x100 1x100"},
    "TandemModelVersionOld": {"tandem_model_version_age_seconds": "1x150 60+60x50"},
    "TandemCheckpointsFail": {"tandem_model_checkpoints_unsaved": "0x150 1+1x50"},
    "TandemRewardFalling": {"tandem_training_actual_reward": " ".join(["0.5", "0.6"] * 90 + ["0.1"] * 20)},
    "TandemPendingGrowing": {'tandem_buffer_pending{lane="0"}': "3x100 600+2x100"},
    "TandemRewardsMissing": {'tandem_experiences_settled_total{lane="0",outcome="expired"}': "0+100x200"},
    "TandemOverwrittenUnsampled": {'tandem_buffer_overwritten_total{lane="0"}': "0+3000x200"},
    "TandemAbsent": {'tandem_instance_info{name="a"}': "1x100 stale"},
    "TandemProcessFatal": {'tandem_process_state{process="trainer",state="fatal"}': "0x150 1x50"},
    "TandemProcessRestarts": {'tandem_process_restarts_total{process="trainer"}': "0x180 1+1x20"},
    "TandemDecisionErrors": {'tandem_decision_errors_total{lane="0"}': "0+1x200"},
    "TandemDecisionsSlow": {'tandem_decision_duration_seconds_bucket{lane="0",le="0.001"}': "0x200"},
}
"""What changes when the fault of an alert is there; the alert fires after 190 minutes."""


def rules() -> list[dict[str, Any]]:
    """All rules of the file."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Every PromQL expression of both files."""
    for rule in rules():
        yield rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]


def test_only_metrics_that_exist_are_asked_for() -> None:
    """Every metric named in the alerts and in the dashboard is one that /metrics shows."""
    shown = {family.shown + suffix for family in FAMILIES for suffix in (HISTOGRAM if "hist" in family.kind else ("",))}
    asked = {name for text in expressions() for name in re.findall(r"\btandem_\w+", text)}
    assert asked
    assert asked <= shown


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    """Panels have distinct ids, lie inside the 24 columns and do not overlap; each asks the chosen data source."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        area = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not area & cells, panel["title"]
        cells |= area
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_every_alert_fires_for_its_fault(tmp_path: Path) -> None:
    """A healthy instance raises no alert, and each fault raises its own."""
    assert set(FAULTS) == {rule["alert"] for rule in rules()}

    def case(alert: str, fault: dict[str, str]) -> dict[str, Any]:
        series = {**HEALTHY, **fault}
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": "190m",
                    "exp_samples": [{"labels": "{}", "value": 1 if fault else 0}],
                },
            ],
        }

    healthy = [case(alert, {}) for alert in FAULTS]
    healthy[0]["promql_expr_test"][0]["expr"] = 'count(ALERTS{alertstate="firing"}) or vector(0)'
    tests = [healthy[0], *(case(alert, fault) for alert, fault in FAULTS.items())]
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    result = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_are_valid() -> None:
    """`promtool check rules` accepts the file."""
    result = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
