"""The candidate: the model in training and its learner, what makes them fit to be published, and the way back.

Between a step's beginning and its publishing nothing here may be believed: whatever ends a step early (an exception, a
refusal, an interruption), the next one begins with the published weights and the learner's state of that moment.
"""

from __future__ import annotations

import logging

import torch

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.instance import Instance, seeded_model
from ..shared.learning import Batch, Learner, StepResult, build_learner, copied_state
from ..shared.weights.binding import Binding
from ..shared.weights.checkpoints import Checkpoint
from ..shared.weights.finite import became_not_finite
from ..shared.weights.flat_model import FlatModel
from ..shared.weights.publisher import Publisher
from ..shared.weights.slots import Slots
from ..shared.weights.subscriber import Look, Subscriber
from .guards.publish_guard import PublishGuard
from .loop import TrainerFailed

log = logging.getLogger(__name__)

RANDOM = "random.torch"
"""The state of torch's random numbers, among the optimiser's tensors in a checkpoint."""
_UNREADABLE = "the newest published weights cannot be read; restart the instance"
_GIVE_UP_STATE = 5
"""After so many steps in a row that came to nothing, the learner's state is suspected too."""


class Candidate:
    """Takes steps, finds their faults, publishes, and goes back."""

    def __init__(
        self, instance: Instance, module: torch.nn.Module, config: ContinuousTrainingConfig, device: torch.device
    ) -> None:
        self.instance = instance
        self.config = config
        self.device = device
        self.flat = FlatModel(module.to(device), device)
        self.slots: Slots = instance.open_slots(self.flat.layout)
        self.publisher = Publisher(self.slots)
        self._published = Subscriber(self.slots)
        self._staging = torch.empty(self.flat.layout.data_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._binding = Binding(self.flat)
        self._take_published()
        self.guard = PublishGuard(self.flat, instance.application.heads, config)
        self.learner = self._build_learner()
        self._good = copied_state(self.learner)
        self._settled = True
        self._overshot = False
        self.in_vain = 0

    @property
    def version(self) -> int:
        """The newest published version."""
        return self.publisher.version

    def begin(self) -> None:
        """Begin the steps of one publication. What comes of them counts only once it is published."""
        self.settle()
        self._settled = False
        self.in_vain += 1

    def step(self, batch: Batch) -> StepResult:
        """One step of the learner on a batch, after `begin`. May raise."""
        self._bind()
        # An application may have switched gradients off for its own purposes.
        with torch.enable_grad():
            result = self.learner.step(batch)
        self._bind()
        return result

    def settle(self) -> None:
        """Go back if a step was left in the middle: an exception or an interruption may have come at any moment."""
        if not self._settled:
            self.go_back()

    def _bind(self) -> None:
        left = self._binding.restore()
        if left:
            log.debug("version %d: taken back into the published memory: %s", self.version, ", ".join(left))

    def find_fault(self, observations: torch.Tensor, steps: int = 1) -> str | None:
        """Why the candidate, made by `steps` steps, must not be published, naming the tensor; None if it may be.

        A candidate that moves too far is refused once; if the next one does so too it is shortened instead, or
        the same refusal would come for ever.
        """
        in_force = self.in_force()
        fault = self._find_learner_fault()
        if fault is not None:
            return self.guard.find_not_finite(in_force) or fault
        fault = self.guard.find_fault(in_force, observations, steps)
        if fault is None:
            self._overshot = False
        elif self._overshot and (share := self.guard.shorten(in_force, observations, steps)):
            self.instance.control.add("metrics.shortened")
            log.warning("version %d: a step was shortened to %.2g of itself: %s", self.version, share, fault)
            return None
        else:
            self._overshot = True
        return fault

    def _find_learner_fault(self) -> str | None:
        is_finite = getattr(self.learner, "is_finite", None)
        name = None if is_finite is not None and is_finite() else became_not_finite(self.learner.state(), self._good)
        return None if name is None else f"the learner's {name} has a value that is not finite"

    def publish(self, version: int, drawn_ns: int = 0) -> None:
        """Publish the weights as they are now. `drawn_ns`: see Publisher.publish."""
        source = self.flat.flat
        if self.device.type != "cpu":
            source = self._staging.copy_(self.flat.flat)
        self.publisher.publish(source, version, drawn_ns)
        self._settled = True
        self.in_vain = 0

    def remember_good(self) -> None:
        """The learner's state as it is now belongs to the published weights."""
        self._good = copied_state(self.learner)

    def go_back(self) -> None:
        """Return to the published weights and the learner's state of that moment: a step may have spoilt both."""
        self._bind()
        self._take_published()
        # Before the learner is built: one that keeps gradients of its own must not lose them again.
        self.flat.model.zero_grad(set_to_none=True)
        if self.in_vain >= _GIVE_UP_STATE:
            log.warning("version %d: %d steps in a row came to nothing; the learner's state is dropped",
                        self.version, self.in_vain)  # fmt: skip
            self.learner = self._build_learner()
            self._good = copied_state(self.learner)
            self.in_vain = 0
        else:
            self.take_state(self._good, "its last good state")
        self._settled = True

    def trial(self, batch: Batch) -> bool:
        """Try a step and undo it: True if it neither raised nor became infinite anywhere."""
        in_vain = self.in_vain
        try:
            self.begin()
            self.step(batch)
            passed = (self._find_learner_fault() or self.guard.find_not_finite(self.in_force())) is None
        except Exception:
            passed = False
        self.in_vain = 0
        self.go_back()
        self.in_vain = in_vain
        return passed

    def configure(self, config: ContinuousTrainingConfig) -> None:
        """Take over other settings; the learner keeps its state."""
        self.settle()
        self.config = self.guard.config = config
        self.take_state(self.learner.state(), "its state under the new settings")

    def take_state(self, state: dict[str, torch.Tensor], source: str) -> None:
        """A learner with this state, or a fresh one, logged, if the state is another learner's."""
        state = {name: tensor.clone() for name, tensor in state.items() if name != RANDOM}
        self.learner = self._build_learner()
        if not state:
            return
        try:
            self.learner.load_state(state)
        except Exception as error:
            log.error("version %d: the learner cannot take over %s and starts afresh: %s", self.version, source, error)
            self.learner = self._build_learner()

    def take_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take weights and learner's state of a checkpoint. Raises CheckpointError; nothing changes then."""
        optimiser = checkpoint.load_optimiser()
        self._bind()
        self._settled = False
        try:
            checkpoint.load_model(self.flat)
        except BaseException:
            self.go_back()
            raise
        self.take_state(optimiser, f"that of checkpoint {checkpoint.version}")

    def take_fresh(self, seed: int) -> None:
        """Fresh weights and a fresh learner."""
        fresh = FlatModel(seeded_model(self.instance.application, seed))
        self._bind()
        self._settled = False
        self.flat.flat.copy_(fresh.flat)
        self.learner = self._build_learner()

    def in_force(self) -> torch.Tensor:
        """The published weights on the learner's device: uint8 [bytes]. Nobody else publishes, so the slot is quiet."""
        index = self.slots.find(self.version)
        if index < 0:
            raise TrainerFailed(_UNREADABLE)
        slot = self.slots.data[index]
        return slot if self.device.type == "cpu" else slot.to(self.device)

    def _take_published(self) -> None:
        self._published.version = -1
        if self._published.refresh(self._staging) is not Look.TAKEN:
            raise TrainerFailed(_UNREADABLE)
        self.flat.flat.copy_(self._staging)

    def _build_learner(self) -> Learner:
        instance = self.instance
        return build_learner(self.flat.model, instance.application.heads, self.config, instance.config.folder)
