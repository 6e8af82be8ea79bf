"""`ctl evaluate`: what a checkpoint would have earned on logged decisions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ...shared.configuration.config import Config, load
from ...shared.errors import SupervisorError, need_extra
from .up import config_path

EXAMPLE = "ctl evaluate --instance a --policy newest --by time"
EXITS = "0 the log answers, whatever the answer; 1 something cannot be read; 3 the log cannot tell"

CANNOT_TELL = 3
NEWEST, LOGGED = "newest", "logged"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    parser.add_argument("--log", metavar="DIR", help="a folder of logged decisions (default: the instance's buffer)")
    add_instance(parser)
    parser.add_argument("--policy", required=True, metavar="CHECKPOINT", help="its folder, its version, or `newest`")
    parser.add_argument(
        "--against", default=LOGGED, metavar="CHECKPOINT|logged", help="what it is compared with (logged)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the configuration (default: that of the instance, else as `ctl up`)"
    )
    parser.add_argument(
        "--by", metavar="NAME", help="in parts, too: `action`, `time`, or the name of an action head or a feature"
    )
    parser.add_argument(
        "--interval", choices=("bernstein", "bootstrap"), default="bernstein",
        help="bernstein holds at every size, bootstrap is narrower (bernstein)",
    )  # fmt: skip
    parser.add_argument(
        "--unseen", action="store_true", help="only decisions made after the checkpoint was saved: it learned from none"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--plot", metavar="FILE", help="draw it, as PNG, SVG or PDF (needs matplotlib)")


def run(options: argparse.Namespace) -> int:
    """Evaluate it."""
    from ...evaluation.answer import lines, verdict
    from ...evaluation.breakdown import breakdown
    from ...evaluation.evaluation import UNKNOWN, evaluate
    from ...evaluation.log.decisions import LoggedDecisions

    if options.plot is not None:
        need_extra("plot", "--plot", ("matplotlib",))
    source = _Source.of(options)
    application = source.application
    log = LoggedDecisions.of(source.records, application.heads)
    policy = source.policy(options.policy)
    against = None if options.against == LOGGED else source.policy(options.against)
    saved_at = max(policy.saved_at, 0.0 if against is None else against.saved_at)
    seen = log.timestamps <= saved_at
    if options.unseen:
        log = log.take(~seen)
    found = evaluate(log, policy, against, application.reward_range, options.interval)
    names = application.features, application.heads
    parts = [] if options.by is None else breakdown(found, options.by, *names, options.interval)
    if options.plot is not None:
        from ...evaluation.plot import draw

        draw(found, Path(options.plot), parts)
    share = float(seen.mean()) if len(seen) and not options.unseen else 0.0
    if options.json:
        plain = {**found.to_dict(), "parts": [part.to_dict() for part in parts], "verdict": verdict(found)}
        print(json.dumps({**plain, "seen_share": share}))
    else:
        print("\n".join([*lines(found, parts), *_seen(share)]))
    return CANNOT_TELL if found.outcome == UNKNOWN else 0


def _seen(share: float) -> list[str]:
    """A warning if a checkpoint may have learned from the decisions that it is evaluated on."""
    if not share:
        return []
    return [
        f"note: {share:.0%} of the decisions were made before it was saved: it may have learned from them, and looks"
        " better on them than it is (--unseen leaves them out)"
    ]


class _Source:
    """Where the decisions come from, and what is needed to read the checkpoints that are asked about."""

    def __init__(self, records: Any, application: Any, config: Config, checkpoints: Path) -> None:
        self.records = records
        self.application = application
        self.config = config
        self.checkpoints = checkpoints

    @classmethod
    def of(cls, options: argparse.Namespace) -> _Source:
        """The folder of `--log`, or the rings of a running instance."""
        return cls._folder(options) if options.log is not None else cls._instance(options)

    @classmethod
    def _folder(cls, options: argparse.Namespace) -> _Source:
        from ...evaluation.log.folder import LogSchema, read_log
        from ...shared.instance import configured_application
        from .logs import data_folder

        config = load(config_path(options.config))
        application = configured_application(config)
        schema, records = read_log(Path(options.log))
        ours = LogSchema.of(application)
        for what in ("application", "features", "heads"):
            if getattr(schema, what) != getattr(ours, what):
                raise SupervisorError(
                    f"{options.log}: is a log of other {what} than the configuration's: {getattr(schema, what)!r},"
                    f" not {getattr(ours, what)!r}; choose the application's configuration with --config"
                )
        return cls(records, application, config, data_folder(options.instance, config.data_dir) / "checkpoints")

    @classmethod
    def _instance(cls, options: argparse.Namespace) -> _Source:
        from ...shared.experiences.sampler import ReplayReader
        from ...shared.instance import Instance

        instance = Instance(options.instance)
        reader = ReplayReader(instance.control, instance.records)
        records = reader.recent(reader.capacity * reader.lanes)
        config = instance.config_in_force() if options.config is None else load(config_path(options.config))
        return cls(records, instance.application, config, instance.data_dir / "checkpoints")

    def policy(self, asked: str) -> Any:
        """The policy of a checkpoint's folder or version. Raises SupervisorError if there is none."""
        from ...evaluation.target_policy import ModelPolicy

        return ModelPolicy.from_checkpoint(self._checkpoint(asked), self.application, self.config)

    def _checkpoint(self, asked: str) -> Path:
        if not (asked == NEWEST or asked.isdecimal()):
            if not Path(asked).is_dir():
                raise SupervisorError(f"{asked!r} is neither a checkpoint's folder nor a version nor `newest`")
            return Path(asked).absolute()
        from .checkpoints import listing

        versions = [entry["version"] for entry in listing(self.checkpoints)]
        if not versions:
            raise SupervisorError(f"there are no checkpoints in {self.checkpoints} (`ctl checkpoint` saves one)")
        version = versions[-1] if asked == NEWEST else int(asked)
        if version not in versions:
            raise SupervisorError(f"there is no checkpoint of version {version} (there are {versions})")
        return self.checkpoints / f"{version:012d}"
