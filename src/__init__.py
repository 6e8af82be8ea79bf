"""Tandem: a live decision server that keeps learning from its own decisions.

What users import stands here, and is loaded when it is asked for: importing the package itself costs nothing.
"""

from __future__ import annotations

import sys

from .moved import Finder

__version__ = "0.1.0"

__all__ = [
    "ActionHead",
    "Application",
    "CandidateHead",
    "Choices",
    "Engine",
    "GaussianHead",
    "Service",
    "Verdict",
    "open_engine",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .inference_proc.engine import Engine
    from .inference_proc.static import open_engine
    from .inference_proc.web.service import Service
    from .shared.actions.heads import ActionHead, CandidateHead, GaussianHead
    from .shared.actions.offer import Choices
    from .shared.application import Application, Verdict

_PLACES = {
    "ActionHead": "shared.application",
    "Application": "shared.application",
    "CandidateHead": "shared.application",
    "Choices": "shared.actions.offer",
    "Engine": "inference_proc.engine",
    "GaussianHead": "shared.application",
    "Service": "inference_proc.web.service",
    "Verdict": "shared.application",
    "open_engine": "inference_proc.static",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not any(isinstance(finder, Finder) for finder in sys.meta_path):
    sys.meta_path.append(Finder())
