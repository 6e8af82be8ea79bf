"""A price is found for each moment, from what was bought and what was not."""

from __future__ import annotations

import tandem.testing
from tandem.shared.configuration.config import load

from .conftest import ROOT
from .test_router import InProcess, module_of

FOLDER = ROOT / "examples" / "price"


def test_prices_move_to_where_most_is_earned() -> None:
    """The README's promises: clearly more than at first and than any single price, nearly what the best prices would
    earn.
    """
    simulate = module_of(FOLDER, "simulate")
    with tandem.testing.run(module_of(FOLDER, "tariff").create, seed=1) as app:
        rows = simulate.play(InProcess(app), simulate.World(3), 1600)
    assert simulate.share(rows[-500:]) > 0.95
    assert simulate.share(rows[-500:]) > simulate.share(rows[:200]) + 0.05
    assert simulate.share(rows[-500:]) > simulate.best_fixed() + 0.05


def test_its_configuration_is_one() -> None:
    """The file is read without a problem, and names the application."""
    assert load(FOLDER / "config.yaml").application == "tariff"
    assert 1000 < (FOLDER / "learning.png").stat().st_size < 60_000
