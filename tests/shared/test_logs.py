"""Log lines, as text and as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tandem.shared.configuration.config import LoggingConfig
from tandem.shared.logs import JsonFormatter, TextFormatter, configure_logging


def record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    """A log record as a logger makes it."""
    made = logging.LogRecord("tandem.somewhere", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(more)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    """The one line that the formatter makes, read strictly."""
    line = JsonFormatter().format(made)
    assert "\n" not in line
    value: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    return value


def test_the_version_is_a_field() -> None:
    """A message about a version has it as a field of its own, and not in the text."""
    event = as_json(record("version %d: loss %.2f", 1234, 0.5))
    assert (event["version"], event["message"]) == (1234, "loss 0.50")
    assert event["level"] == "warning"
    assert event["logger"] == "tandem.somewhere"
    assert "version" not in as_json(record("nothing is known of a version %d", 3))


def test_data_are_fields_in_strict_json() -> None:
    """What is given as data are fields; what is not finite is null; what is not JSON is written as text."""
    data = {"reward": float("-inf"), "loss": 0.5, "action": [1, 2], "folder": Path("data")}
    event = as_json(record("version %d: trained", 1, data=data))
    assert (event["reward"], event["loss"], event["action"]) == (None, 0.5, [1, 2])
    assert isinstance(event["folder"], str)


def test_an_error_stays_in_its_line() -> None:
    """As JSON a traceback is a field of the line; as text only the traceback takes further lines."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        made = record("version %d: it\nfailed", 7, exc_info=sys.exc_info())
    assert as_json(made)["error"].endswith("ValueError: first\nsecond")
    first, second, *_ = TextFormatter().format(made).splitlines()
    assert first.endswith(" warning tandem.somewhere: version 7: it\\nfailed")
    assert second.startswith("Traceback")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, restored after the test."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:], logger.level = handlers, level
    logger.setLevel(level)


def test_format_and_level_are_as_configured(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of at least the level go to standard error in the format."""
    configure_logging(LoggingConfig(level="warning", format="json"))
    logging.getLogger("tandem.test").info("version %d: too quiet", 1)
    logging.getLogger("tandem.test").warning("version %d: shown", 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["version"] for line in err.splitlines()] == [2]
