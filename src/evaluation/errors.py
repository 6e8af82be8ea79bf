"""What is raised when something cannot be evaluated at all; where a log merely says too little, the answer says so."""

from __future__ import annotations

from ..shared.errors import TandemError


class EvaluationError(TandemError):
    """A log, a policy or an argument of an evaluation cannot be used; the message says what would be right."""
