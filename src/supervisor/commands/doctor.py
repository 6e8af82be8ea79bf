"""`ctl doctor`: what could go wrong on this machine, and the command that mends it."""

from __future__ import annotations

import argparse
import json

from ...shared.configuration.config import load
from ..setup import doctor
from .up import config_path, with_port

EXAMPLE = "ctl doctor --config configs/continuous_training.yaml"
EXITS = "0 nothing stands in the way (there may be warnings); 1 something does; 2 the configuration is refused"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--config", metavar="FILE", help="configuration, as for `ctl up`")
    parser.add_argument("--port", type=int, metavar="N", help="port, as for `ctl up`")
    parser.add_argument("--json", action="store_true", help="as one JSON list of findings")


def run(options: argparse.Namespace) -> int:
    """Check the machine."""
    path = config_path(options.config)
    config = with_port(load(path), options.port)
    findings = doctor.all_findings(options.instance, config, path)
    if options.json:
        print(json.dumps([finding.to_dict() for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.level:<5}{finding.subject:<15}{finding.text}")
            if finding.remedy:
                print(f"{'':<20}-> {finding.remedy}")
    return 1 if any(finding.level == "bad" for finding in findings) else 0
