"""What is wrong with a text setting beyond being a text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tandem.shared.configuration import value_checks
from tandem.shared.configuration.config import parse
from tandem.shared.errors import ConfigError


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (value_checks.module, ["tandem.queen", "lights", "a.b_c"]),
        (value_checks.learner, ["tandem.trainer_proc.learner:PolicyGradient", "lights:Learner"]),
        (value_checks.folder, ["data", "/srv/x", "../up", "none of it"]),
        (value_checks.command, ["", "  ", "none", " none ", "python server.py", "sh -c 'a b'", 'x ""']),
        (value_checks.host, ["", "127.0.0.1", "0.0.0.0", "::1", "::", "fe80::1%eth0"]),
        (value_checks.host, ["localhost", "my-host.example.", "a_b"]),
    ],
)  # fmt: skip
def test_good_values(check: Callable[[str], str], good: list[str]) -> None:
    """Nothing to say about them."""
    assert {value: check(value) for value in good} == dict.fromkeys(good, "")


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (value_checks.module, ["", "None", "none", "a.b.", "lights.py:x", "a-b", "a b", "../x", "class"]),
        (value_checks.learner, ["", "None", "lights", "lights:", ":Learner", "lights:a.b", "a b:c"]),
        (value_checks.folder, ["", "  ", "None", "none", "~", "null"]),
        (value_checks.command, ["None", "NONE", "null", "~", "echo 'a", 'echo "', "x \\", '""', "'' x"]),
        (value_checks.host, ["[::1]", "None", "none", "127.0.0.1:80", "http://x", "a b"]),
        (value_checks.host, ["1.2.3", "999.1.1.1", "x..y", "-x"]),
    ],
)  # fmt: skip
def test_bad_values(check: Callable[[str], str], bad: list[str]) -> None:
    """Each is refused in words."""
    assert [value for value in bad if not check(value)] == []


def test_the_configuration_asks_them() -> None:
    """A bad text is one line with path, value and what is wrong; the other settings are not touched."""
    plain = {
        "application": "lights.py:create",
        "data_dir": "",
        "trainer": {"learner": "PolicyGradient"},
        "inference": {"command": "echo 'a", "host": "[::1]", "lanes": 3},
    }
    with pytest.raises(ConfigError) as caught:
        parse(plain, "test")
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        "application", "data_dir", "trainer.learner", "inference.command", "inference.host",
    ]  # fmt: skip
    assert "no closing quotation" in str(caught.value)
    lenient = parse(plain, "test", strict=False)
    assert (lenient.inference.lanes, lenient.inference.command, lenient.inference.host) == (3, "", "127.0.0.1")
