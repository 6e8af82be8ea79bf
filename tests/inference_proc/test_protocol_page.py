"""docs/protocol.md says what the server does."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from server_kit import receive
from tandem.inference_proc.web.generic_protocol import GenericHandler
from tandem.inference_proc.web.limits import Limits
from tandem.shared.messages.envelope import Code

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json request\n(.*?)```\n\n```json reply\n(.*?)```", PAGE, re.DOTALL)

LIGHTS = """
import torch
from tandem.shared.application import ActionHead, Application


class Lights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 5)

    def forward(self, observations):
        logits = self.layer(observations)
        return logits[:, :3], logits[:, 3:]


def create(settings, folder):
    heads = ActionHead("light", 3, ("off", "dim", "bright")), ActionHead("fan", 2)
    return Application("lights", ("hour", "darkness"), heads, Lights)
"""


@pytest.fixture
def lights(start_server: Callable[..., Any], toy_application: str, tmp_path: Path) -> Any:
    """A server of the page's application."""
    name = f"lights_{uuid.uuid4().hex[:8]}"
    (tmp_path / "modules" / f"{name}.py").write_text(LIGHTS, encoding="utf-8")
    return start_server(application=name)


def test_the_pages_examples_are_what_the_server_answers(lights: Any) -> None:
    """Each request of the page, sent in its order, gets a reply with the fields of the page's, and the same text."""
    assert len(EXAMPLES) >= 7
    with lights.connect() as client:
        for request, shown in EXAMPLES:
            client.send(request)
            reply, expected = receive(client), json.loads(shown)
            assert list(reply) == list(expected)
            assert reply["type"] == expected["type"]
            assert list(reply["data"]) == list(expected["data"]), request
            if "messageId" in request:
                assert reply["messageId"] == expected["messageId"]
            if reply["type"] == "decision":
                action = reply["data"]["action"]
                assert reply["data"]["labels"] == [("off", "dim", "bright")[action[0]], None]
                assert reply["data"]["key"] == expected["data"]["key"]
                assert reply["data"]["reason"] == expected["data"]["reason"]
            elif reply["type"] != "pong":
                assert reply["data"] == expected["data"]


def test_the_page_names_what_there_is() -> None:
    """Every request, the default limits and no other error code than the server's stand on the page."""
    for kind in GenericHandler.supported:
        assert f"\n## {kind}\n" in PAGE
    codes = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert codes <= set(get_args(Code))
    limits = Limits()
    assert f"{limits.request_timeout:g} seconds for a request's headers" in PAGE
    assert limits.ping_timeout == limits.write_timeout
    assert f"{limits.ping_timeout:g} seconds without an answer to a ping" in PAGE
    assert f"1 to {limits.client_id_length} printable characters" in PAGE
