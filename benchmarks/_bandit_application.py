"""An application of F plain numbers and one choice of K: what bandits.py plays every set and every world with.

It is copied beside each configuration, where server and trainer find it. Its settings say F and K.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tandem import ActionHead, Application

HIDDEN = 64


class Network(torch.nn.Module):
    """A small network, for versions of Tandem that want the application to bring one."""

    def __init__(self, features: int, choices: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(features, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, choices)
        )

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        """One head's logits, float32[B, K]."""
        return (self.layers(observations),)


def needs_model() -> bool:
    """True if an application of this version of Tandem must bring a model."""
    field = next(field for field in dataclasses.fields(Application) if field.name == "build_model")
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def create(settings: dict[str, Any], folder: Path) -> Application:
    """The least that can be said of it: names for its numbers, and one head. Everything else is a default."""
    features, choices = int(settings["features"]), int(settings["choices"])
    parts: dict[str, Any] = {}
    if needs_model():
        parts["build_model"] = lambda: Network(features, choices)
    names = tuple(f"x{index}" for index in range(features))
    return Application(name="bandit", features=names, heads=(ActionHead("choice", choices),), **parts)
