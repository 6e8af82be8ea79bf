"""`ctl up` with a model whose weights are not all it computes with."""

from __future__ import annotations

import pytest
from tandem.shared.memory.segments import list_segments

from .conftest import Ctl

SHOP = """
import numpy
import torch
from tandem.shared.application import ActionHead, Application

DRAWN = torch.from_numpy(numpy.random.normal(size=(2, 8)).astype("float32"))


class Model(torch.nn.Module):
    def __init__(self, imported):
        super().__init__()
        self.register_buffer("projection", DRAWN if imported else torch.randn(2, 8), persistent=False)
        self.layer = torch.nn.Linear(8, 3)

    def forward(self, observations):
        return (self.layer(observations @ self.projection),)


def create(settings, folder):
    build = lambda: Model(settings["imported"])
    return Application("shop", ("a", "b"), (ActionHead("arm", 3),), build)
"""


@pytest.mark.parametrize(
    ("imported", "words"),
    [(False, "projection (a buffer with persistent=False) differs"), (True, "another process computes different")],
)
def test_a_model_with_hidden_state_never_starts(ctl: Ctl, imported: bool, words: str) -> None:
    """One line names it, what is random when the module is imported as well; nothing runs and nothing is left."""
    (ctl.folder / "shop.py").write_text(SHOP, encoding="utf-8")
    refused = ctl.up(application="shop", settings={"imported": imported}, inference={"command": "none"})
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("ctl: ")]
    assert line.startswith("ctl: application shop: ")
    assert words in line
    assert list_segments(ctl.instance) == {}
    assert ctl("status").returncode != 0
