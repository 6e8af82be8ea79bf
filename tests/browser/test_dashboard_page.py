"""The dashboard in a real browser, against a running game."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_kit import ask

pytestmark = pytest.mark.browser


def numbers(text: str) -> float:
    """The number that a text shows."""
    return float(text.replace(",", "").replace("%", "").split()[0])


def seconds(text: str) -> float:
    """The duration that a text like "80 ms" or "1.2 s" shows."""
    number, unit = text.split()
    return float(number.replace(",", "")) * {"ms": 1e-3, "s": 1.0}[unit]


@contextlib.contextmanager
def paused(server: Any, visit: Callable[..., Any]) -> Iterator[Any]:
    """The page of a server whose training is paused meanwhile, once it shows that."""
    server.request("POST", "/api/training/pause")
    try:
        page = visit(server)
        page.page.select_option("#interval", "1")
        page.wait("document.getElementById('state').textContent === 'paused'")
        yield page
    finally:
        server.request("POST", "/api/training/resume")


def test_every_figure_is_the_one_that_the_interface_gives(demo: Any, visit: Callable[..., Any]) -> None:
    """With training paused, each element shows what GET /api/training/live and /api/nn-dashboard say."""
    server = demo.server
    with paused(server, visit) as page:
        live = server.get("/api/training/live?limit=1").json()
        stats = live["stats"]
        assert page.text("model-version") == f"{stats['model_version']:,}"
        assert numbers(page.text("average-loss")) == pytest.approx(
            stats["training"]["average_loss"], abs=6e-4, rel=0.06
        )
        assert numbers(page.text("mean-reward")) == pytest.approx(stats["training"]["mean_reward"], abs=6e-4, rel=0.06)
        assert numbers(page.text("policy-lag")) == pytest.approx(stats["training"]["policy_lag"]["mean"], abs=0.51)
        assert page.text("total-steps") == f"{stats['training']['total_steps']:,} steps in all"
        assert "of 512 experiences" in page.text("buffer-size")
        assert numbers(page.text("utilization")) == pytest.approx(100 * stats["buffer"]["utilization"], abs=1.0)
        assert page.page.get_attribute("#buffer-gauge", "role") == "meter"
        assert page.text("application") == f"tandem.queen · instance {server.name}"
        assert page.page.locator("#processes tr").count() == 2
        nn = server.get("/api/nn-dashboard").json()
        assert numbers(page.text("pass-rate")) == pytest.approx(100 * nn["gate_behavior"]["pass_rate"], abs=10)
        assert page.page.locator("#heatmap i").count() == 400
        assert page.page.locator("#recent tr").count() == 10
        assert page.page.locator("#steps > div").count() == 5
        assert page.page.locator("#reasons b").count() == 3
        assert page.page.locator("#components b").count() == 4


def test_freshness_is_that_of_the_statistics(
    demo: Any, visit: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """The tile shows how long the game's rewards waited, half of them and 99 %, as GET /api/training/stats gives it."""
    server = demo.server
    with paused(server, visit) as page:
        fresh: dict[str, Any] = {}

        def is_shown() -> bool:
            # The last weights before the pause may reach a decision after the page has looked.
            fresh.update(server.get("/api/training/stats").json()["training"]["freshness"])
            return bool(page.page.evaluate("state.stats.stats.training.freshness.count") == fresh["count"])

        wait_until(is_shown, "the page has the newest statistics")
        assert fresh["count"] > 0
        assert page.page.text_content(".tile:has(#freshness-p50) dt") == "Freshness"
        assert seconds(page.text("freshness-p50")) == pytest.approx(fresh["p50_seconds"], abs=6e-4, rel=0.05)
        shown = re.fullmatch("99 % within (.+), reward to decision", page.text("freshness-p99"))
        assert shown
        assert seconds(shown[1]) == pytest.approx(fresh["p99_seconds"], abs=6e-4, rel=0.05)


def test_version_and_graphs_move_by_themselves(demo: Any, visit: Callable[..., Any]) -> None:
    """Without a reload the version rises and the loss graph reaches on."""
    page = visit(demo.server)
    first = numbers(page.text("model-version"))
    end = numbers(page.page.text_content("#loss-chart svg text:last-of-type"))
    page.wait(f"Number(document.getElementById('model-version').textContent.replace(/,/g, '')) > {first + 5}")
    assert numbers(page.page.text_content("#loss-chart svg text:last-of-type")) > end
    start = page.page.evaluate("state.rows[0].version")
    assert start == 1 or page.page.evaluate("state.rows.length") == 1000


def test_the_buttons_reach_the_trainer(demo: Any, visit: Callable[..., Any]) -> None:
    """Pause and resume show and take effect; a rollback asks first, raises the version, and is marked in the graph."""
    server = demo.server
    page = visit(server)
    page.page.click("[data-command=pause]")
    page.wait("document.getElementById('state').textContent === 'paused'")
    assert server.engine.control.get("command.pause") == 1
    page.page.click("[data-command=resume]")
    page.wait("document.getElementById('state').textContent !== 'paused'")
    page.page.click("[data-command=checkpoint]")
    page.wait("document.getElementById('answer').textContent.startsWith('checkpoint: version')")
    rollbacks = server.engine.control.get("rollbacks")
    page.page.click("[data-command=rollback]")
    page.page.click("#confirm button[value=cancel]")
    assert server.engine.control.get("rollbacks") == rollbacks
    page.page.click("[data-command=rollback]")
    page.page.click("#confirm button[value=go]")
    page.wait("document.getElementById('answer').textContent.startsWith('rollback: version')")
    assert server.engine.control.get("rollbacks") == rollbacks + 1
    page.wait("document.querySelector('#loss-chart line[stroke-dasharray]') !== null")


def test_a_lost_connection_is_shown_and_recovers(demo: Any, browser: Any, visit: Callable[..., Any]) -> None:
    """While the server cannot be reached the page says so; afterwards it goes on by itself."""
    page = visit(demo.server)
    page.page.select_option("#interval", "1")
    page.context.set_offline(True)
    page.wait("!document.getElementById('notice').hidden", 40)
    assert "Connection lost" in page.text("notice")
    before = numbers(page.text("model-version"))
    page.context.set_offline(False)
    page.wait("document.getElementById('notice').hidden", 40)
    page.wait(f"Number(document.getElementById('model-version').textContent.replace(/,/g, '')) > {before}")
    page.errors[:] = [error for error in page.errors if "ERR_INTERNET_DISCONNECTED" not in error]


def test_refresh_export_layers_and_theme(demo: Any, visit: Callable[..., Any], tmp_path: Path) -> None:
    """The page's own buttons work, by keyboard too."""
    page = visit(demo.server, color_scheme="light")
    page.page.focus("#refresh")
    page.page.keyboard.press("Enter")
    with page.page.expect_download() as download:
        page.page.click("#export")
    download.value.save_as(tmp_path / "export.json")
    exported = json.loads((tmp_path / "export.json").read_text())
    assert exported["live"]["instance"] == demo.server.name
    assert exported["history"]
    assert exported["decisions"]["nn_decisions"]
    page.page.click("[data-layer=sent]")
    assert page.page.get_attribute("[data-layer=sent]", "aria-pressed") == "true"
    assert page.page.get_attribute("[data-layer=frequency]", "aria-pressed") == "false"
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.page.evaluate(color)
    page.page.click("#theme")
    assert page.page.evaluate(color) != light


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(
    demo: Any, visit: Callable[..., Any], size: tuple[int, int], scheme: str
) -> None:
    """The page fits its window in both schemes; every graph, meter and map has a name for screen readers."""
    page = visit(demo.server, color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    page.wait("document.querySelector('#loss-chart svg') !== null")
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.page.evaluate("[...document.querySelectorAll('[role=img],[role=meter]')].every(e => e.ariaLabel)")
    named = "every(e => e.innerText || e.ariaLabel || e.labels.length)"
    assert page.page.evaluate(f"[...document.querySelectorAll('button,select,input')].{named}")


@pytest.mark.parametrize(("width", "columns"), [(1400, 4), (1280, 4), (800, 4), (390, 2)])
def test_no_tile_stands_alone(demo: Any, visit: Callable[..., Any], width: int, columns: int) -> None:
    """Every row of tiles is full, on a desk and on a phone, and no tile's text is wider than the tile."""
    page = visit(demo.server, viewport={"width": width, "height": 900})
    tops = page.page.evaluate("[...document.querySelectorAll('.tile')].map(e => e.offsetTop)")
    assert {tops.count(top) for top in tops} == {columns}
    texts = "[...document.querySelectorAll('.tile, .tile > *')]"
    assert page.page.evaluate(f"{texts}.every(e => e.scrollWidth <= e.clientWidth)")


def test_without_a_game_its_parts_are_absent(
    start_server: Callable[..., Any], visit: Callable[..., Any], toy_application: str
) -> None:
    """For another application there is no pipeline and no gate component; decisions and buffer are shown."""
    server = start_server(application=toy_application)
    with server.connect() as client:
        for number in range(20):
            ask(client, {"type": "decide", "key": f"k{number}", "observation": [1, 2, 3, 4]})
            ask(client, {"type": "reward", "key": f"k{number}", "value": 0.5})
    page = visit(server)
    assert page.page.is_hidden("#pipeline")
    assert page.page.is_hidden("#components-box")
    assert page.page.locator("#heatmap i").count() == 5
    assert page.text("completed-count") == "20"
    assert page.text("state") == "degraded"
    assert page.text("freshness-p50") == "\N{EN DASH}", "nobody learns from these rewards"
    assert page.text("freshness-p99") == "reward to decision"


def test_a_token_is_asked_for_when_one_is_needed(start_server: Callable[..., Any], visit: Callable[..., Any]) -> None:
    """A refused command asks for the token once, and keeps it in memory only."""
    server = start_server(token="s3cret")
    page = visit(server)
    page.page.click("[data-command=pause]")
    page.page.fill("#token", "s3cret")
    page.page.click("#ask-token button[value=go]")
    page.wait("document.getElementById('answer').textContent === 'training is paused'")
    assert server.engine.control.get("command.pause") == 1
    page.wait("document.getElementById('state').textContent === 'paused'")
    page.page.click("[data-command=resume]")
    page.wait("document.getElementById('answer').textContent === 'training goes on'")
    assert "s3cret" not in page.page.evaluate("JSON.stringify(localStorage)")
    page.errors[:] = [error for error in page.errors if "403" not in error]
