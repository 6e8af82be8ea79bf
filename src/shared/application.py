"""What an application offers the core: a model, layouts and, if it has them, a gate and a reward.

An application is a module with a function `create(settings, folder) -> Application`; a configuration
names it (`application: tandem.queen`). Everything here is a value or a protocol: the core never learns what
an observation means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .actions.heads import ActionHead as ActionHead
from .actions.heads import CandidateHead as CandidateHead
from .actions.heads import GaussianHead as GaussianHead
from .actions.heads import check_heads, input_width
from .errors import ApplicationError
from .features import PlainFeatures
from .models.default import DefaultModel, with_inputs
from .modules import describe, import_beside
from .values import MASKED as MASKED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Verdict:
    """What a gate said about one action.

    `expected_reward` may be -inf (the action cannot be paid for). `components` has one number for each of the
    gate's `components` names.
    """

    send: bool
    reason: str
    expected_reward: float
    components: tuple[float, ...] = ()


class Gate(Protocol):
    """Evaluates an action before it is sent. Called on the decision path: no blocking, no input or output."""

    components: tuple[str, ...]

    def evaluate(self, observation: Any, action: tuple[int, ...], key: Hashable, version: int) -> Verdict:
        """Evaluate `action` for `observation`; `version` is the model version that chose it."""

    def sent(self, key: Hashable, action: tuple[int, ...]) -> None:
        """The action was let through and will be answered."""

    def failed(self, key: Hashable, action: tuple[int, ...]) -> None:
        """The client could not execute the action that was sent last: undo `sent`."""

    def rewarded(self, reward: float) -> None:
        """The actual reward of an action that was sent came in."""

    def forget(self, key: Hashable) -> None:
        """The key will not come back: drop what is remembered about it."""

    def statistics(self) -> dict[str, Any]:
        """Counts and averages for status replies, ready for JSON."""

    def clear(self) -> None:
        """Forget exploration state and statistics (a reset)."""


class RewardCalculator(Protocol):
    """Computes the reward of a decision from the observation before and the one after it.

    `context_dtype` is a fixed-size numpy dtype: what must be stored of the earlier observation. It is stored
    in shared memory, so that a reward can still be computed after a crash of the server.
    """

    context_dtype: np.dtype[Any]

    def context(self, observation: Any) -> NDArray[Any]:
        """The 0-dimensional array of `context_dtype` that `reward` will need later."""

    def reward(
        self, context: NDArray[Any], action: tuple[int, ...], executed: bool, observation: Any
    ) -> tuple[float, dict[str, float]]:
        """The reward in -1..1 and its components, given the later `observation`."""


_PLAIN = PlainFeatures(())
"""The default of `encode`, until the features are known."""
_DEFAULT = DefaultModel(0, ())
"""The default of `build_model`, until features and heads are known."""


@dataclass(frozen=True)
class Application:
    """The parts that a configuration plugs into the core.

    Without `build_model` the application gets a model that fits its heads (`shared.models.default`).
    `build_model()` returns a `torch.nn.Module` whose `forward(observations: float32[B, F])` returns one tensor of
    logits `float32[B, head.size]` for each action head, in order (under `reward_regression`, which `auto` means for one
    head, of expected rewards instead); choices that must not be taken have the logit `MASKED`. If the module also has a
    method `infer(features: float32[F])` that returns the same logits as one numpy array `float32[head.size]` for each
    head, single observations are decided with it: for a small model in numpy it takes a fraction of the time. It must
    read the parameters' memory at each call, since newer weights lie elsewhere, and agree with `forward`
    (`check_infer`). A layer of that name is only a layer.

    What else a model must be (all its state in parameters and persistent buffers, the same logits each time) is seen
    when an instance is created: `shared.model_checks`.

    `encode(observation)` returns float32[F], finite, and raises ValueError for an observation that makes no sense. What
    it returns is copied: it may be the same memory each time. By default the observation is taken for a sequence of F
    numbers. `handler(engine)` returns the application's message handler for the bundled server, if it speaks a protocol
    of its own. `gate_components` and `context_dtype` are those of the gate
    and the reward calculator (they fix the record's size before either is built). `failed_reward` is what an action
    earns that the client could not execute. `troubles()` says what is wrong with the application's own files while it
    goes on without them; the server reports itself degraded then. `reward_range` (lowest, highest), if it is given,
    says where actual rewards lie: what lies outside is trained on as the nearer end. Without it a range is learned from
    the rewards seen, wide enough for anything but absurd numbers.
    """

    name: str
    features: tuple[str, ...]
    heads: tuple[ActionHead, ...]
    build_model: Callable[[], torch.nn.Module] = _DEFAULT
    encode: Callable[[Any], NDArray[np.float32]] = _PLAIN
    build_gate: Callable[[], Gate] | None = None
    build_reward: Callable[[], RewardCalculator] | None = None
    handler: Callable[..., Any] | None = None
    gate_components: tuple[str, ...] = ()
    context_dtype: np.dtype[Any] | None = None
    failed_reward: float = -0.5
    troubles: Callable[[], list[str]] = list
    reward_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_heads(self.name, self.heads)
        if self.build_model is _DEFAULT:
            object.__setattr__(self, "build_model", DefaultModel.of(len(self.features), self.heads))
        else:
            object.__setattr__(self, "build_model", with_inputs(self.build_model, len(self.features), self.heads))
        if isinstance(self.encode, PlainFeatures):
            object.__setattr__(self, "encode", PlainFeatures(self.features))
        if self.reward_range is None:
            return
        low, high = self.reward_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ApplicationError(
                f"application {self.name}: reward_range is {self.reward_range!r}; it must be two finite numbers, the "
                "lower one first"
            )

    @property
    def inputs(self) -> int:
        """Numbers that a model is given of one request: the features, and with a CandidateHead those of candidates."""
        return input_width(len(self.features), self.heads)


def check_forward(model: torch.nn.Module, application: Application) -> None:
    """Raises ApplicationError, naming the first difference, unless `forward` returns what the heads promise."""
    import torch

    wanted = ", ".join(f"{head.name} [B, {head.size}]" for head in application.heads)
    promise = f"application {application.name}: forward must return one tensor of logits for each head ({wanted})"
    was_training = model.training
    try:
        with torch.inference_mode():
            found = model.eval()(torch.zeros(2, application.inputs))
    except Exception as error:
        raise ApplicationError(f"{promise}; for float32 [2, {application.inputs}] it raises {error!r}") from error
    model.train(was_training)
    if isinstance(found, torch.Tensor) or not hasattr(found, "__len__"):
        raise ApplicationError(f"{promise}; it returns one {type(found).__name__}, not a tuple")
    if len(found) != len(application.heads):
        raise ApplicationError(f"{promise}; it returns {len(found)} of them")
    for head, logits in zip(application.heads, found, strict=True):
        if not isinstance(logits, torch.Tensor):
            raise ApplicationError(f"{promise}; for {head.name} it returns {type(logits).__name__}")
        if tuple(logits.shape) != (2, head.size) or logits.dtype != torch.float32:
            advice = (
                "" if logits.dtype == torch.float32 else "; end forward with .float(), or build the model by .float()"
            )
            raise ApplicationError(
                f"{promise} as float32; for {head.name} and 2 observations it returns {logits.dtype} "
                f"{list(logits.shape)}{advice}"
            )


def check_infer(model: torch.nn.Module, features: NDArray[np.float32]) -> float:
    """How far `model.infer` is from `model.forward` on observations float32[B, F]: the largest difference of logits.

    Raises ApplicationError if `infer` is missing or gives other shapes or dtypes. For tests: it should stay below 1e-5.
    """
    import torch

    from .weights.parameter_arrays import method_infer

    infer = method_infer(model)
    if infer is None:
        raise ApplicationError(f"{type(model).__name__} has no method infer(features)")
    was_training = model.training
    with torch.inference_mode():
        expected = [logits.numpy() for logits in model.eval()(torch.from_numpy(features))]
    model.train(was_training)
    worst = 0.0
    for row, observation in enumerate(features):
        found = infer(observation)
        if [(item.shape, item.dtype) for item in found] != [(head.shape[1:], head.dtype) for head in expected]:
            raise ApplicationError(f"{type(model).__name__}.infer gives other shapes or dtypes than forward")
        for item, head in zip(found, expected, strict=True):
            apart = np.abs(item - head[row])[item != head[row]]
            worst = max(worst, float(apart.max())) if apart.size else worst
    return worst


def import_application(name: str, folder: Path) -> ModuleType:
    """The application's module, found as `import_beside` does.

    Raises ApplicationError if the name is badly written, the module does not exist, or the name means two. An
    ImportError from inside the user's module is passed on untouched.
    """
    return import_beside("application", name, folder)


def load_application(name: str, settings: Mapping[str, Any], folder: Path) -> Application:
    """Import module `name` and call its `create(settings, folder)`.

    `folder` is the folder of the configuration file: relative paths in `settings` start there. Raises what
    `import_application` raises, and ApplicationError if the module has no `create`.
    """
    module = import_application(name, folder)
    create = getattr(module, "create", None)
    if not callable(create):
        raise ApplicationError(f"application: {describe(module)} has no function create(settings, folder)")
    application: Application = create(settings, folder)
    return application
