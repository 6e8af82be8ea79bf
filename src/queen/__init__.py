"""The bundled application: a Queen that spawns parasites to stop a player's mining."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.application import ActionHead, Application
from ..shared.errors import ConfigError, need_extra

need_extra("server", "the bundled game", ("msgspec", "websockets"))

from .features import FEATURE_SETS, FeatureEncoder  # noqa: E402
from .gate import COMPONENTS, SimulationGate  # noqa: E402
from .gate_config import GateConfigFile  # noqa: E402
from .observation import SPAWN_TYPES  # noqa: E402
from .reward import QueenReward, reward_context_dtype  # noqa: E402

if TYPE_CHECKING:
    from torch import nn

    from .protocol import QueenProtocol

_DEFAULTS: dict[str, Any] = {
    "gate_config": "simulation_gate.yaml",
    "feature_set": "v28",
    "presence": False,
    "model": "candidates",
    "speed": "auto",
}
_CHOICES = {"feature_set": FEATURE_SETS, "model": ("candidates", "split_head")}


# Long: the parts of the application in one place, a closure each.
def create(settings: Mapping[str, Any], folder: Path) -> Application:
    """The Queen's parts for these settings.

    `gate_config`: the gate's YAML file, relative to `folder`. `feature_set`: `v28` or `v29`. `presence`: rank chunks by
    workers present instead of mining, in shuffled slots. `model`: `candidates` or `split_head`. `speed`: how many times
    faster than real time the game is played; the gate's times pass so much faster. `auto`: as its observations come.

    Raises ConfigError listing every setting that is unknown, of the wrong type or not allowed.
    """
    chosen = _checked(settings)
    file = folder / chosen["gate_config"]
    source = GateConfigFile(file)
    axis, chunks = source.current.chunks_per_axis, source.current.chunks
    speed = None if chosen["speed"] == "auto" else float(chosen["speed"])
    encoder = FeatureEncoder(source, chosen["feature_set"], chosen["presence"])

    def build_model() -> nn.Module:
        from .model import build_model

        return build_model(chosen["model"], len(encoder.names), axis)

    def troubles() -> list[str]:
        # A file that nobody asked for by name may be missing: then the defaults are meant.
        is_meant = "gate_config" in settings or file.exists()
        return [source.problem] if source.problem and is_meant else []

    def handler(engine: Any) -> QueenProtocol:
        from .protocol import QueenProtocol

        return QueenProtocol(engine, source)

    return Application(
        name="tandem.queen",
        features=encoder.names,
        heads=(ActionHead("spawn_chunk", chunks), ActionHead("spawn_type", 2, SPAWN_TYPES)),
        build_model=build_model,
        encode=encoder,
        build_gate=lambda: SimulationGate(source, speed=speed),
        build_reward=lambda: QueenReward(source),
        handler=handler,
        gate_components=COMPONENTS,
        context_dtype=reward_context_dtype(chunks),
        troubles=troubles,
    )


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    problems = []
    for key, value in settings.items():
        if key not in _DEFAULTS:
            near = get_close_matches(str(key), _DEFAULTS, 1)
            allowed = f"did you mean {near[0]}?" if near else f"known settings: {', '.join(_DEFAULTS)}"
            problems.append(f"{key}: is unknown; {allowed}")
        elif key in _CHOICES and value not in _CHOICES[key]:
            problems.append(f"{key}: {value!r} is not one of {', '.join(_CHOICES[key])}")
        elif key == "presence" and not isinstance(value, bool):
            problems.append(f"{key}: {value!r} is not true or false")
        elif key == "speed" and value != "auto" and not (type(value) in (int, float) and 0 < value < math.inf):
            problems.append(f"{key}: {value!r} is not a number above 0, nor auto")
        elif key == "gate_config" and not (isinstance(value, str) and value):
            problems.append(f"{key}: {value!r} is not a file name")
    if problems:
        raise ConfigError("settings of tandem.queen", problems)
    return {**_DEFAULTS, **settings}
