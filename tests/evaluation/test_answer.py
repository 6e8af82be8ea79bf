"""The answer in words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from _logged_worlds import TablePolicy, TableWorld, gated, greedy
from tandem.evaluation.answer import lines, verdict
from tandem.evaluation.breakdown import breakdown
from tandem.evaluation.evaluation import Evaluation, evaluate
from tandem.shared.application import ActionHead

WORLD = TableWorld.drawn(1)
LOG = WORLD.log(5000, 1)
LIMITS = (0.0, 1.0)


def strict(found: Evaluation) -> str:
    """Its JSON, in which every number is one."""
    return json.dumps(found.to_dict(), allow_nan=False)


def test_each_outcome_is_a_sentence() -> None:
    """Better, worse, not distinguishable, cannot tell: with the policy, what it is compared with, and numbers."""
    better, logging = greedy(WORLD, name="version 7"), TablePolicy(WORLD.logging, "version 3")
    found = evaluate(LOG, better, limits=LIMITS)
    assert found.apart is not None
    assert f"{found.apart.value:+.4g}" in verdict(found)
    assert verdict(found).startswith("version 7 is better than what was logged: +0.")
    assert verdict(evaluate(LOG, logging, better, LIMITS)).startswith("version 3 is worse than version 7: -0.")
    assert verdict(evaluate(LOG, logging, limits=LIMITS)).startswith("version 3 is not distinguishable from what")
    deterministic = evaluate(replace(LOG, propensities=np.ones(5000)), better, limits=LIMITS)
    assert verdict(deterministic).startswith("cannot tell, because the log is of a policy that never explored")
    assert json.loads(strict(deterministic))["difference"] is None


def test_the_table_has_every_estimate_and_its_parts() -> None:
    """Each estimator's row, the support, the method, the parts, and the verdict last."""
    found = evaluate(LOG, greedy(WORLD, name="version 7"), limits=LIMITS)
    parts = breakdown(found, "action", (), (ActionHead("kind", 5),))
    text = lines(found, parts)
    whole = "\n".join(text)
    for part in ("what was logged", "inverse propensity", "self-normalised", "direct method", "doubly robust"):
        assert part in whole, part
    for part in ("rows count, largest weight", "overlap 100.0%", "empirical Bernstein by betting", "kind 4"):
        assert part in whole, part
    assert text[-1] == verdict(found)
    assert json.loads(strict(found))["outcome"] == "better"


def test_what_was_held_back_or_never_rewarded_is_said() -> None:
    """The shares stand in the answer."""
    log = gated(LOG, 2)
    log = replace(log, rewards=np.where(np.arange(5000) < 40, np.nan, log.rewards))
    text = "\n".join(lines(evaluate(log, greedy(WORLD, 0.7), limits=LIMITS)))
    assert "held back (WAIT)" in text
    assert "greedy would have been held back in" in text
    assert "without a reward" in text
