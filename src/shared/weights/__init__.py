"""Weights: the flat model, the slots that carry it from process to process, and checkpoints."""

from __future__ import annotations

_PLACES = {
    "FlatModel": "flat_model",
    "Publisher": "publisher",
    "Slots": "slots",
    "Subscriber": "subscriber",
    "TensorSpec": "layout",
    "WeightsLayout": "layout",
    "checksum": "slots",
    "claim_trainer": "publisher",
    "create_slots": "slots",
}
"""What this was a module of: it goes on working for one release."""


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings
    from importlib import import_module

    place = f"{__name__}.{_PLACES[name]}"
    text = f"{__name__}.{name} is {place}.{name} now; the old name goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(import_module(place), name)
