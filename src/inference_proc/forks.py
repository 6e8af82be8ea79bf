"""Engines do not survive a fork: two processes would write into one lane. The child's copy says so instead."""

from __future__ import annotations

from ..shared.memory.claim import Refusal

FORKED = Refusal(
    "this engine was attached before its process forked, and its lane belongs to the parent;"
    " call Engine.attach in the child (with uvicorn or gunicorn: in the application's start-up)"
)
"""Stands where the engine's lock was in a forked child: whatever needs the lock raises TandemError."""
