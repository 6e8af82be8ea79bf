"""How well it learns public sets, through the real processes, beside LinUCB and Vowpal Wabbit: `./ctl bench bandits`.

A classification set is played as a contextual bandit: an example is shown, a class is chosen, and the reward, 1 for the
right class and 0 for any other, is given at once and only for the class that was chosen. The figure is the mean reward
over the whole pass, exploration included. docs/learning.md describes the protocol; `--list` names the sets.

For Tandem every set and seed starts a fresh instance with the settings that are installed: `ctl up -d`, a trainer
process, and an engine in this process that decides `--rate` times a second and sees the features as they are. The peers
see standardised features, learn after every decision and are not paced; they play before Tandem does.

`--rates` plays the sets at several rates instead and prints the regret at each; `--scenario` plays a made-up world that
changes, is late or lies.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from _bandit_live import Played, play
from _bandit_peers import PEERS, available, pool_of
from _bandit_peers import play as play_peer
from _bandit_report import TANDEM, Result, Table, plot, shown, summary, target, targets
from _bandit_scenarios import SCENARIOS, Scenario
from _bandit_scenarios import play as play_scenario
from _bandit_sets import Classes, load, names
from _kit import end_like_ctrl_c, machine
from tandem.shared.errors import MissingExtra, need_extra

RATE = 200.0
SEEDS = 3
RATES_SETS = ("satimage", "penbased")
"""What `--rates` plays if no set is named."""
FAST, SLOW, MOST_REGRET = 1000.0, 20.0, 1.5
"""The rates whose regrets are compared, and the most that the first may be of the second."""


class Progress:
    """What is being played, on standard error: one line that changes on a terminal, else a line for each."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.is_terminal = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """The next step begins."""
        self.done += 1
        line = f"{self.done}/{self.steps}  {text}"
        print(f"\r\033[K{line}" if self.is_terminal else line, end="" if self.is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def clear(self) -> None:
        """Make room for a row."""
        if self.is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def changed(words: list[str]) -> dict[str, Any]:
    """`SECTION.NAME=VALUE` of the command line as sections of a configuration. Raises ValueError."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        section, point, setting = name.partition(".")
        if not (equals and point):
            raise ValueError(f"--set: {word!r} is not SECTION.NAME=VALUE")
        into = found.setdefault(section, {})
        try:
            into[setting] = json.loads(value)
        except json.JSONDecodeError:
            into[setting] = value
    return found


class AtOnce:
    """Plays of Tandem, `options.parallel` of them at once, each in a process of its own; with 1 in this one."""

    def __init__(self, options: argparse.Namespace, asked: list[str]) -> None:
        self._options = options
        self._pool: Any = None
        if options.parallel > 1:
            self._pool = pool_of(options.parallel, begin)
            jobs = [(name, seed) for name in asked for seed in range(options.seeds)]
            self._found = {job: self._pool.apply_async(play_seed, (*job, options)) for job in jobs}

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            # Each ends its play, and with it its instance, before it goes.
            (self._pool.close if kind is None else self._pool.terminate)()
            self._pool.join()

    def play(self, classes: Classes, name: str, seed: int) -> Played:
        """One pass. Raises what it raised."""
        if self._pool is None:
            return play(classes, seed, self._options.rate, self._options.decisions, self._options.changes)
        played: Played = self._found[name, seed].get()
        return played


def begin() -> None:
    """How each process of this benchmark begins."""
    end_like_ctrl_c()
    torch.set_num_threads(1)


def play_seed(name: str, seed: int, options: argparse.Namespace) -> Played:
    """One pass of a set by its name."""
    return play(load(name), seed, options.rate, options.decisions, options.changes)


# Many parameters: what a set is played with.
def play_set(
    name: str, peers: list[str], options: argparse.Namespace, pool: Any, at_once: AtOnce, progress: Progress
) -> Result:
    """All peers, then Tandem, with every seed; a play that fails is named in the result, and the others go on."""
    classes, seeds = load(name), range(options.seeds)
    order = classes.order(0, options.decisions)
    result = Result(classes.name, len(order), classes.x.shape[1], classes.choices, {TANDEM: []})
    progress.say(f"{classes.name}: the peers")
    for peer in peers:
        rewards = []
        for seed, job in [
            (seed, pool.apply_async(play_peer, ((peer, classes, seed, options.decisions),))) for seed in seeds
        ]:
            try:
                rewards.append(job.get())
            except Exception as error:
                rewards.append(None)
                result.failures.append(f"{peer}, seed {seed}: {error!r}")
        result.add(peer, rewards)
    mine: list[Any] = []
    for seed in seeds:
        progress.say(f"{classes.name}: Tandem, seed {seed}, {len(order):,} decisions at {options.rate:g}/s")
        try:
            played = at_once.play(classes, name, seed)
        except Exception as error:
            mine.append(None)
            result.failures.append(f"{TANDEM}, seed {seed}: {error}")
        else:
            mine.append(played.rewards)
            result.plays.append({"seed": seed, **played.figures})
    result.add(TANDEM, mine)
    progress.clear()
    return result


def run_sets(options: argparse.Namespace, asked: list[str]) -> int:
    """Play the sets and print; 1 if a play did not end."""
    lacking = available()
    peers = [peer for peer in PEERS if not lacking[peer] and not options.no_peers]
    table = Table(peers, list(range(options.seeds)))
    if not options.json:
        for package in sorted(set(filter(None, lacking.values()))):
            print(f"{package} is missing (pip install 'tandem-learning[bench]'): its columns are left out")
        print(table.head(), flush=True)
    results = []
    progress = Progress(len(asked) * (1 + options.seeds))
    # One core is enough to be quick, and leaves the other to whoever shares the machine.
    with pool_of(max(1, len(os.sched_getaffinity(0)) - 1)) as pool, AtOnce(options, asked) as at_once:
        for name in asked:
            result = play_set(name, peers, options, pool, at_once, progress)
            results.append(result)
            print(json.dumps(result.as_json()) if options.json else table.row(result), flush=True)
    found = summary(results, lacking, described(options))
    lines = targets(found)
    if options.json:
        print("\n".join(map(json.dumps, [{"summary": found}, *lines])), flush=True)
    else:
        print(table.end(found, lines), flush=True)
    if options.plot:
        plot(results, Path(options.plot))
    return 1 if found["failures"] else 0


def run_rates(options: argparse.Namespace, asked: list[str]) -> int:
    """Play the sets at several rates and print the regrets; 1 if a play did not end."""
    progress = Progress(len(asked) * len(options.rates) * options.seeds)
    failed = 0
    for name in asked:
        classes = load(name)
        regrets: dict[float, list[float]] = {}
        plays, failures = [], []
        for rate in options.rates:
            for seed in range(options.seeds):
                progress.say(f"{name}: seed {seed} at {rate:g}/s")
                try:
                    played = play(classes, seed, rate, options.decisions, options.changes)
                except Exception as error:
                    failures.append(f"{rate:g}/s, seed {seed}: {error}")
                    continue
                regrets.setdefault(rate, []).append(float((1 - played.rewards).sum()))
                plays.append({"asked_rate": rate, "seed": seed, **played.figures})
        progress.clear()
        failed += len(failures)
        means = {f"{rate:g}": statistics.fmean(found) for rate, found in regrets.items()}
        decisions = len(classes.order(0, options.decisions))
        line = {
            "set": name,
            "decisions": decisions,
            "capped": bool(options.decisions) and decisions == options.decisions,
            "regret": means,
            "regret_by_seed": {f"{rate:g}": found for rate, found in regrets.items()},
            "plays": plays,
            "failures": failures,
            "options": described(options),
        }
        print_rates(line, options.json)
    return 1 if failed else 0


def print_rates(line: dict[str, Any], as_json: bool) -> None:
    """One set's regrets, and the target where both of its rates were played to the end."""
    fast, slow = (line["regret"].get(f"{rate:g}") for rate in (FAST, SLOW))
    ratio = None if not slow or fast is None else fast / slow
    met = None if ratio is None else ratio <= MOST_REGRET and not line["failures"]
    figure = f"regret at {FAST:g}/s over that at {SLOW:g}/s on {line['set']}"
    found = target(figure, ratio, f"<= {MOST_REGRET}", met)
    if as_json:
        print(json.dumps(line), json.dumps(found), sep="\n", flush=True)
        return
    cap = f" (no more at any rate: --decisions {line['decisions']})" if line["capped"] else ""
    print(f"{line['set']}: regret over {line['decisions']:,} decisions{cap}")
    for rate, regret in line["regret"].items():
        mine = [play for play in line["plays"] if f"{play['asked_rate']:g}" == rate]
        reached = statistics.fmean(play["rate"] for play in mine)
        worst = max(play["p99_ms"] for play in mine)
        print(f"  {rate:>6}/s (reached {reached:.1f}/s): {regret:8.1f}   p99 {worst:.2f} ms")
    print("\n".join([*(f"  failed: {text}" for text in line["failures"]), f"  {shown(found)}"]), flush=True)


def run_scenarios(options: argparse.Namespace, asked: list[str]) -> int:
    """Play the scenarios and print; 1 if a play did not end."""
    progress = Progress(len(asked) * options.seeds)
    failed = 0
    for name in asked:
        scenario = SCENARIOS[name].faster(options.speed)
        line: dict[str, Any] = {"scenario": name, "what": scenario.text, "seeds": []}
        line |= {"rate": scenario.rate, "delay": scenario.delay, "timeout": scenario.timeout, "speed": options.speed}
        line |= {"visits": min(options.decisions or scenario.visits, scenario.visits), "failures": []}
        for seed in range(options.seeds):
            progress.say(f"{name}: seed {seed}, {line['visits']:,} visits at {scenario.rate:g}/s")
            try:
                line["seeds"].append(play_scenario(scenario, seed, line["visits"], options.changes))
            except Exception as error:
                line["failures"].append(f"seed {seed}: {error}")
        progress.clear()
        failed += len(line["failures"])
        line["options"] = {**described(options), "rate": scenario.rate}
        print_scenario(line, scenario, options.json)
    return 1 if failed else 0


def print_scenario(line: dict[str, Any], scenario: Scenario, as_json: bool) -> None:
    """What one scenario gave, and its target."""
    shares = [one["share"] for one in line["seeds"]]
    line["share"] = statistics.fmean(shares) if shares and not line["failures"] else None
    met = None if line["share"] is None else line["share"] >= scenario.goal
    figure = f"{line['scenario']}: share of the way from random to best"
    found = target(figure, line["share"], f">= {scenario.goal:.2f}", met)
    if as_json:
        print(json.dumps(line), json.dumps(found), sep="\n", flush=True)
        return
    print(f"{line['scenario']}: {line['what']}; {line['visits']:,} visits at {scenario.rate:g}/s")
    if line["speed"] != 1:
        low, high = scenario.delay
        print(f"  scaled by --speed {line['speed']:g}: that rate, delays of {low:g} to {high:g} s, a timeout of"
              f" {scenario.timeout:g} s; not the trainer, whose second stays a second")  # fmt: skip
    for one in line["seeds"]:
        peer = "" if one["thompson"] is None else f"; linear Thompson sampling {one['thompson']:.2f}"
        print(f"  seed {one['seed']}: {one['share']:.2f} of the way{peer}"
              f"; mean chance {one['mean_chance']:.3f}, oracle {one['oracle']:.3f}, no learning"
              f" {one['no_learning']:.3f}")  # fmt: skip
        print("    by twentieths:", " ".join(f"{part:.2f}" for part in one["parts"]))
        print("   ", ", ".join(f"{name} {value}" for name, value in one["play"].items()))
    print("\n".join([*(f"  failed: {text}" for text in line["failures"]), f"  {shown(found)}"]), flush=True)


def described(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "rate": options.rates or options.rate,
        "seeds": options.seeds,
        "decisions": options.decisions or "all",
        "parallel": options.parallel,
        "changed_settings": options.changes,
        "machine": machine(),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="ctl bench bandits", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="only these; or files NAME.npz with x, y")
    parser.add_argument("--list", action="store_true", help="name the sets and the scenarios")
    parser.add_argument("--rate", type=float, default=RATE, metavar="N", help=f"decisions a second ({RATE:g})")
    parser.add_argument("--rates", type=float, nargs="+", metavar="N", help="compare the regret at these rates")
    parser.add_argument("--scenario", nargs="+", metavar="NAME", help="play these made-up worlds instead; or: all")
    parser.add_argument("--speed", type=float, default=1.0, metavar="N", help="scale the times of a scenario")
    text = f"plays of each set ({SEEDS}) or scenario (1)"
    parser.add_argument("--seeds", type=int, metavar="N", help=text)
    parser.add_argument("--decisions", type=int, default=0, metavar="N", help="no more than these of each pass")
    parser.add_argument("--parallel", type=int, default=1, metavar="N",
                        help="play N sets at once: only on a machine with more than 2 N cores")  # fmt: skip
    parser.add_argument("--no-peers", action="store_true", help="Tandem alone, while trying things")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="change a setting")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--plot", metavar="FILE", help="draw the progressive reward of every set")
    options = parser.parse_args(arguments)
    if options.seeds is None:
        options.seeds = 1 if options.scenario else SEEDS
    if min([options.rate, options.speed, *(options.rates or [])]) <= 0 or options.decisions < 0:
        parser.error("rates and speed must be above 0, decisions at least 0")
    if min(options.seeds, options.parallel) < 1:
        parser.error("seeds and parallel must be at least 1")
    if options.parallel > 1 and (options.rates or options.scenario):
        parser.error("--parallel plays sets: it goes with neither --rates nor --scenario")
    if options.plot and (options.rates or options.scenario):
        parser.error("--plot draws sets: it goes with neither --rates nor --scenario")
    if options.scenario == ["all"]:
        options.scenario = list(SCENARIOS)
    for name in options.scenario or ():
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r} (there are {', '.join(SCENARIOS)}, all)")
    try:
        options.changes = changed(options.set)
    except ValueError as error:
        parser.error(str(error))
    return options


def chosen(options: argparse.Namespace) -> list[str]:
    """The sets to play. Raises MissingExtra, and ValueError for a name that there is not."""
    asked = options.sets or (list(RATES_SETS) if options.rates else names())
    own = [name for name in asked if name.endswith(".npz")]
    known = names() if len(own) < len(asked) else []
    for name in asked:
        if name not in known and not (name in own and os.path.isfile(name)):
            raise ValueError(f"there is no set {name!r} (`--list` names them; a file is named with its .npz)")
    return list(dict.fromkeys(asked))


def main(arguments: list[str] | None = None) -> int:
    """Play and print."""
    options = parse(arguments)
    begin()
    try:
        if options.list:
            print("\n".join(f"{name:<16}{scenario.text}" for name, scenario in SCENARIOS.items()))
            print("\n".join(["", *names()]))
            return 0
        if options.scenario:
            return run_scenarios(options, options.scenario)
        if options.plot:
            need_extra("bench", "--plot", ("matplotlib",))
        asked = chosen(options)
        return run_rates(options, asked) if options.rates else run_sets(options, asked)
    except MissingExtra as error:
        print(f"ctl bench bandits: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"ctl bench bandits: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
