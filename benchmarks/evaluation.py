"""How often the intervals of `ctl evaluate` hold what is true, and how wide they are: `./ctl bench evaluation`.

In made-up worlds the value of a policy is known. Each world is logged `--runs` times at three sizes, and the policy
that would be best there is evaluated from the log alone, and compared with what was logged. Covered: runs whose 95 %
interval holds the truth (90 of 100 are asked for). Width: mean width over that of the normal approximation, which
covers too little where few rows weigh most (at the largest size at most 2 is asked for). Refused: runs with too few
rows that count, which are no part of those figures. Then logs are made that cannot tell, and each must be refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from _kit import machine
from _logged_worlds import TablePolicy, TableWorld, gated, greedy
from tandem.evaluation.estimators import DM, DR, IPS, SNIPS, ips_terms, snips_terms
from tandem.evaluation.evaluation import UNKNOWN, Evaluation, evaluate
from tandem.evaluation.intervals import METHODS, Terms
from tandem.evaluation.log.decisions import LoggedDecisions

SIZES = (1_000, 10_000, 100_000)
LEAST_COVERED, WIDEST = 0.9, 2.0
LIMITS = (0.0, 1.0)
APART = "difference"
BLOCKED = 2

WORLDS: dict[str, tuple[str, TableWorld]] = {
    "rare": ("a click in fifty", TableWorld.drawn(1, rate=0.02)),
    "common": ("a click in five", TableWorld.drawn(2, rate=0.2)),
    "graded": ("rewards between 0 and 1", TableWorld.drawn(3, rate=0.4, graded=True)),
    "learning": ("the logging policy learns while it logs", TableWorld.drawn(4, rate=0.2, learns=True)),
    "many": ("forty actions", TableWorld.drawn(5, choices=40, rate=0.2)),
    "gated": ("a gate holds one action back", TableWorld.drawn(6, rate=0.2)),
}


def say(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def terms_of(found: Evaluation) -> dict[str, Terms]:
    """What each estimate with an interval was made of."""
    rewards, weights = found.rewarded.rewards, found.policy.weights
    terms = {IPS: ips_terms(rewards, weights, LIMITS), SNIPS: snips_terms(rewards, weights, LIMITS)}
    if found.policy.terms is not None and found.against.terms is not None:
        terms[DR] = found.policy.terms
        rows = found.policy.terms.numerators - found.against.terms.numerators
        terms[APART] = replace(found.policy.terms, numerators=rows)
    return terms


def normal_width(terms: Terms) -> float:
    """Width of the normal approximation's 95 % interval."""
    apart = terms.numerators - terms.ratio * terms.denominators
    return 2 * 1.96 * float(np.sqrt((apart * apart).sum())) / float(terms.denominators.sum())


def covered(name: str, size: int, runs: int, method: str) -> dict[str, Any]:
    """One world at one size: by estimator the share of runs that hold the truth, and how wide they are."""
    world = WORLDS[name][1]
    policy = greedy(world, 0.7)
    blocked = BLOCKED if name == "gated" else None
    truth = world.truth(policy, blocked)
    more = truth - world.logged(blocked)
    found: dict[str, list[tuple[bool, float]]] = {}
    effective, refused = 0.0, 0
    for run in range(runs):
        say(f"{name}, {size:,} decisions: {run + 1} of {runs}")
        log = world.log(size, run)
        result = evaluate(gated(log, BLOCKED) if name == "gated" else log, policy, limits=LIMITS, method=method)
        effective += result.policy.support.effective / runs
        if result.outcome == UNKNOWN:
            refused += 1
            continue
        terms = terms_of(result)
        assert result.apart is not None
        for estimate in (*result.policy.estimates, result.apart):
            if estimate.estimator != DM:
                width = (estimate.high - estimate.low) / normal_width(terms[estimate.estimator])
                right = more if estimate.estimator == APART else truth
                found.setdefault(estimate.estimator, []).append((estimate.low <= right <= estimate.high, width))
    estimators = {
        estimator: {
            "covered": sum(holds for holds, _ in results) / len(results),
            "width": round(float(np.mean([width for _, width in results])), 3),
        }
        for estimator, results in found.items()
    }
    return {"world": name, "decisions": size, "effective": round(effective), "refused": refused,
            "truth": round(truth, 5), "more_than_logged": round(more, 5), "estimators": estimators}  # fmt: skip


Spoil = Callable[[LoggedDecisions], LoggedDecisions]
UNUSABLE: dict[str, tuple[Spoil, Callable[[TableWorld], TablePolicy]]] = {
    "a log that never explored": (lambda log: replace(log, propensities=np.ones(len(log))), greedy),
    "a log without propensities": (lambda log: replace(log, propensities=np.full(len(log), np.nan)), greedy),
    "an action that was never taken": (
        lambda log: log.take(log.actions[:, 0] != 1),
        lambda world: TablePolicy(np.tile([0.1, 0.6, 0.1, 0.1, 0.1], (8, 1))),
    ),
    "actions that were never taken where it takes them": (
        lambda log: log.take(log.observations.argmax(axis=1) != log.actions[:, 0]),
        lambda world: TablePolicy(0.9 * np.eye(8, 5) + 0.02),
    ),
    "propensities that are a half of the true ones": (
        lambda log: replace(log, propensities=log.propensities / 2), greedy,
    ),
    "fewer rows than a hundred": (lambda log: log.take(np.arange(len(log)) < 90), greedy),
    "no reward that differs": (lambda log: replace(log, rewards=np.zeros(len(log))), greedy),
}  # fmt: skip
"""What is wrong with a log -> how it is spoiled, and the policy that it is asked about."""


def refusals(runs: int, size: int) -> Iterator[dict[str, Any]]:
    """For each way to spoil a log how many of the runs were refused, and one of the reasons."""
    world = TableWorld.drawn(7)
    for what, (spoil, policy) in UNUSABLE.items():
        say(what)
        results = [evaluate(spoil(world.log(size, run)), policy(world), limits=LIMITS) for run in range(runs)]
        refused = [result for result in results if result.outcome == UNKNOWN]
        yield {"log": what, "runs": runs, "refused": len(refused), "reason": refused[0].reason if refused else ""}


def row(line: dict[str, Any]) -> str:
    """One line of the table."""
    shown = "".join(
        f"{line['estimators'][name]['covered']:>10.0%}{line['estimators'][name]['width']:>7.2f}"
        if name in line["estimators"] else f"{'':>17}"
        for name in (IPS, SNIPS, DR, APART)
    )  # fmt: skip
    return f"{line['world']:<10}{line['decisions']:>9,}{line['effective']:>9,}{line['refused']:>9}{shown}"


def main() -> int:
    """0 if everything is as it is asked for, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", nargs="*", metavar="WORLD", help=f"only these of {', '.join(WORLDS)}")
    parser.add_argument("--runs", type=int, default=100, help="logs of each world at each size (100)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="decisions of a log")
    parser.add_argument("--interval", choices=list(METHODS), default="bernstein")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, a summary last")
    options = parser.parse_args()
    if unknown := set(options.worlds) - set(WORLDS):
        parser.error(f"there is no world {min(unknown)!r} (there are {', '.join(WORLDS)})")
    if not options.json:
        print(f"{METHODS[options.interval]}, 95 %: runs that hold the truth, width over the normal approximation's")
        print(
            f"{'world':<10}{'rows':>9}{'counting':>9}{'refused':>9}{'IPS':>12}{'SNIPS':>17}{'DR':>17}{'difference':>17}"
        )
    lines, least, widest = [], 1.0, 0.0
    for name in options.worlds or WORLDS:
        for size in options.sizes:
            line = covered(name, size, options.runs, options.interval)
            say("")
            print(json.dumps(line) if options.json else row(line), flush=True)
            lines.append(line)
            least = min([least, *(figures["covered"] for figures in line["estimators"].values())])
            if size == max(options.sizes):
                widest = max([widest, *(figures["width"] for figures in line["estimators"].values())])
    unusable = list(refusals(min(options.runs, 20), 3000))
    say("")
    is_refused = all(line["refused"] == line["runs"] for line in unusable)
    summary = {"least_covered": least, "widest_at_the_largest": widest, "refused_all": is_refused,
               "interval": options.interval, "machine": machine()}  # fmt: skip
    if options.json:
        print("\n".join(map(json.dumps, [*unusable, {**summary, "refusals": len(unusable)}])))
    else:
        for line in unusable:
            print(f"{line['log']}: refused {line['refused']} of {line['runs']}: {line['reason']}")
        print(f"least covered {least:.0%} (asked: {LEAST_COVERED:.0%}); widest at the largest size {widest:.2f}"
              f" (asked: {WIDEST:g})")  # fmt: skip
    return 0 if least >= LEAST_COVERED and widest <= WIDEST and is_refused else 1


if __name__ == "__main__":
    sys.exit(main())
