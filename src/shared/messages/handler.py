"""Protocols between a transport, the handler of its messages, and whatever decides.

A transport moves frames and knows its clients; a handler gives frames meaning; a decider answers observations. An
application with a protocol of its own (`Application.handler`) returns a `MessageHandler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .envelope import Code, MessageStatistics


class Decided(Protocol):
    """A decision as a reply shows it; `inference_proc.decision.Decision` is one, and says what each field means."""

    @property
    def key(self) -> str:
        """Whose decision it is."""

    @property
    def action(self) -> tuple[int, ...]:
        """One choice for each action head."""

    @property
    def probability(self) -> float:
        """With which the action was drawn."""

    @property
    def head_probabilities(self) -> tuple[float, ...]:
        """The same for the choice of each head."""

    @property
    def send(self) -> bool:
        """False: the gate held the action back."""

    @property
    def reason(self) -> str:
        """The gate's."""

    @property
    def expected_reward(self) -> float:
        """The gate's; -inf for an action that cannot be paid for."""

    @property
    def version(self) -> int:
        """Version of the weights that decided."""


class Decider(Protocol):
    """What a handler uses of an engine. Safe to call from one event loop; no call waits for the trainer."""

    @property
    def model_version(self) -> int:
        """The newest published version."""

    def decide_many(self, requests: Sequence[tuple[Any, ...]]) -> Sequence[Decided | Exception]:
        """A decision for each (key, observation, territory id), in their order, or the exception that it met."""

    def reward(self, key: str, value: float, final: bool = True) -> bool:
        """True if a decision waited under `key` and takes this reward; more may follow if it is not `final`.

        Raises ValueError for what is not usable.
        """

    def forget(self, key: str) -> None:
        """The key will not come back: its pending decision waits no longer."""


class Client(Protocol):
    """What a handler sees of a connection."""

    id: str
    """The client's name: from the path, or made up for an anonymous connection."""
    named: bool
    """True if the same client may come back under the same id."""
    trusted: bool
    """True if this client may change the instance (reset)."""
    state: Any
    """Free for the handler; None at first."""


class MessageHandler(Protocol):
    """Gives meaning to frames. All calls come from one event loop."""

    supported: tuple[str, ...]
    """The types of request that are understood."""
    statistics: MessageStatistics

    def connected(self, client: Client) -> bytes | None:
        """A client is there. The frame returned greets it; an anonymous client is never greeted."""

    def heartbeat(self, client: Client) -> bytes | None:
        """The frame that a named client gets every now and then."""

    async def handle(self, client: Client, frame: str | bytes) -> bytes | None:
        """Answer one frame, or return None for a frame that gets no answer. Must not raise for anything in `frame`."""

    def refuse(self, client: Client, frame: str | bytes, code: Code, text: str) -> bytes | None:
        """The error frame for a frame that the transport turned down, or that `handle` raised on."""

    def disconnected(self, client: Client) -> None:
        """The connection is gone; called once for each `connected`."""

    def panels(self) -> dict[str, Any]:
        """What the dashboard's data should show besides the core's own figures."""
