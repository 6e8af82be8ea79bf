"""The live model and the policy that acts with it: brought up to date between two decisions.

A small model is copied into a spare buffer, and the parameters are pointed at it once the copy is known to be whole. A
large one is read in place: the parameters are pointed at the slot, and a decision counts only if the slot was not
written to meanwhile. Buffers are copied even then, since a forward pass may write into them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from numpy.typing import NDArray

from ..shared.errors import PolicyUnavailable
from ..shared.experiences.lane import Lane
from ..shared.experiences.sampler import WEAK_MEMORY
from ..shared.instance import Instance
from ..shared.weights.flat_model import FlatModel
from ..shared.weights.freshness import Freshness
from ..shared.weights.slots import Slots
from ..shared.weights.subscriber import Look, Subscriber
from .policy import Asked, Draw, Policy

_IN_PLACE_TRIES = 4
_TAKEN: Final = Look.TAKEN  # by names of their own, since they are read before every decision (see Look)
_BUSY: Final = Look.BUSY


class LiveModel:
    """A model with the newest published weights. `version` is theirs. Not thread-safe: the engine holds a lock.

    An exception that arrives in the middle of a refresh (a signal handler's) leaves parameters that point here and
    there: `version` stays the old one until all of them are bound, and the next refresh begins by finishing the last.
    """

    def __init__(self, flat: FlatModel, slots: Slots, in_place: bool = False) -> None:
        self.flat = flat
        self._subscriber = Subscriber(slots, verify=WEAK_MEMORY)
        # Where loads may pass loads only a checksum of a copy proves that it is whole.
        self._in_place = in_place and not WEAK_MEMORY
        spare = torch.empty(0 if self._in_place else flat.layout.data_bytes, dtype=torch.uint8)
        self._buffers = flat.flat, spare
        self._used = 0
        self._next: int | None = None
        """Index of the buffer that holds a whole newer version, while the parameters are being pointed at it."""
        self.version = self._subscriber.version
        """Version of the weights in use."""

    def trained(self, version: int) -> None:
        """The weights in use were trained here and published as `version`: there is nothing to take."""
        self._subscriber.version = self.version = version

    def refresh(self) -> Look:
        """Take the newest version, if there is a newer one and it is not being written."""
        subscriber = self._subscriber
        if self._next is not None:
            self._bind(self._next)
        elif subscriber.version != self.version:
            subscriber.version = self.version
        if self._in_place:
            found = subscriber.look()
            if found is _TAKEN:
                self.flat.read_in_place(subscriber.hold())
                self.version = subscriber.version
            return found
        spare = 1 - self._used
        found = subscriber.refresh(self._buffers[spare])
        if found is _TAKEN:
            self._next = spare
            self._bind(spare)
        return found

    def _bind(self, index: int) -> None:
        self.flat.bind(self._buffers[index])
        self._used = index
        self.version = self._subscriber.version
        self._next = None

    def drawn_ns(self) -> int:
        """When the last training step of the weights in use drew its experiences (see Subscriber.drawn_ns)."""
        return self._subscriber.drawn_ns()

    def is_whole(self) -> bool:
        """True if what was computed since the last refresh was computed with one version's weights."""
        return not self._in_place or self._subscriber.is_whole()


class LivePolicy:
    """The policy, always with the newest weights. `count(name)` raises a counter of the lane.

    `freshness` is told of a trainer's weights at the first decision by them.
    Where the weights in use are trained in this process (`is_trained_here`), they are the newest already. Not
    thread-safe: the engine holds its lock around every call.
    """

    def __init__(
        self, policy: Policy, model: LiveModel, slots: Slots, count: Callable[[str], None], freshness: Freshness
    ) -> None:
        self.policy = policy
        self.slots = slots
        self.freshness = freshness
        self._told = model.version
        self.is_trained_here = False
        self._model = model
        self._count = count

    @classmethod
    def of(cls, instance: Instance, lane: Lane) -> LivePolicy:
        """The policy of an instance, whose decisions this lane records."""
        config, flat = instance.config, instance.build_model()
        slots = instance.open_slots(flat.layout)
        is_large = flat.layout.data_bytes >= config.weights.in_place_bytes
        policy = Policy.configured(flat.model, config.inference, instance.application.heads, lane.index)
        model = LiveModel(flat, slots, in_place=config.trainer.enabled and is_large)
        freshness = Freshness(instance.control, lane.index, config.trainer.buffer_capacity)
        return cls(policy, model, slots, lane.count, freshness)

    @property
    def flat(self) -> FlatModel:
        """The model whose weights are kept up to date."""
        return self._model.flat

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._model.version

    def act(self, features: NDArray[Any], asked: Sequence[Asked] = ()) -> Sequence[Draw | Exception]:
        """Draw an action for each of `features` (float32[B, F]), all with the same version's weights."""
        for _ in range(_IN_PLACE_TRIES):
            self.refresh()
            if self._model.version != self._told:
                self._told = self._model.version
                if not self.is_trained_here:
                    self.freshness.taken(self._model.drawn_ns())
            draws = self.policy.act_many(features, asked)
            if self._model.is_whole():
                return draws
            self._count("refresh_misses")
        text = f"the weights changed during each of {_IN_PLACE_TRIES} forward passes; raise weights.slots"
        return [PolicyUnavailable(text)] * len(features)

    def refresh(self) -> None:
        """Take the newest weights, if there are newer ones."""
        if self.is_trained_here:
            self._model.trained(self.slots.control.get("version"))
            return
        found = self._model.refresh()
        if found is _TAKEN:
            self._count("refreshes")
        elif found is _BUSY:
            self._count("refresh_misses")
