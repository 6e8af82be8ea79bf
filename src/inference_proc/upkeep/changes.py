"""What others changed in the instance since the engine looked last: resets and reloaded settings."""

from __future__ import annotations

from ...shared.memory import layout
from ...shared.memory.control import Control


class Changes:
    """Notices what operators and other server processes did. Not thread-safe: the engine holds its lock."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._words = control.words
        self._generation_word = layout.offset("generation") >> 3
        self._generation: int = self._words[self._generation_word]
        self._revision = 0

    def is_reset(self) -> bool:
        """True once after each reset of the instance that was not this engine's own."""
        generation = self._words[self._generation_word]
        if generation <= self._generation:
            return False
        self._generation = generation
        return True

    def expect_reset(self) -> None:
        """The engine itself resets: the next generation is no news."""
        self._generation = self._words[self._generation_word] + 1

    def is_reloaded(self) -> bool:
        """True once after each reload of the settings."""
        revision = self._control.get("trainer.config_revision")
        if revision == self._revision:
            return False
        self._revision = revision
        return True
