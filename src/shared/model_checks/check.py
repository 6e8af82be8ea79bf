"""What a model must be so that the server computes what the trainer trained, seen before anything is created.

The model is built twice, with different seeds, and the bytes of one are given to the other: from then on both must
compute the same, for several observations, and once more after training steps of the configured learner. What differs
then is state that the bytes do not carry. Each refusal is an ApplicationError that names it and says what is right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..application import MASKED, Application, check_forward
from ..configuration.config import ContinuousTrainingConfig
from ..errors import ApplicationError, ModelMismatch
from ..learning import learner_name, load_learner
from ..models.estimates import RewardEstimates
from ..weights.flat_model import FlatModel
from ..weights.model_tensors import Hidden, hidden_state
from ..weights.parameter_arrays import method_infer
from .structure import check_module, check_two_builds, refusal
from .trial import Trial, take_steps
from .witness import Witness

Heads = list[NDArray[np.float32]]
"""The logits of each head: float32[B, size]."""

SAME = 1e-6
"""Two models with the same bytes may be so far apart, for logits of size 1."""
CLOSE = 1e-4
"""And two ways of computing the same, `forward` and `infer`; more where the weights themselves are coarse."""
ALONE = 0.05
"""And an observation alone and among others: sums in another order, perhaps in half precision."""


def checked_model(
    application: Application,
    config: ContinuousTrainingConfig,
    build: Callable[[int], nn.Module],
    other_process: Witness | None = None,
    folder: str = ".",
) -> FlatModel:
    """`build(config.seed)` in a flat buffer, if it is found to be what a model must be.

    Raises ApplicationError or ModelMismatch. Needs the memory of a second model and of the learner's state meanwhile.
    With a witness another process is asked as well; this one is then taken to be used for nothing else. A learner of
    the user's own may lie in `folder`.
    """
    module = build(config.seed)
    random, grad = torch.get_rng_state(), torch.is_grad_enabled()
    try:
        check_module(module, application)
        flat = FlatModel(module)
        other = _build_again(build, -1 if config.seed < 0 else config.seed + 1, application)
        check_two_builds(flat, other, application)
        _Check(flat, FlatModel(other), application, config, folder).run(other_process)
    except ModelMismatch as error:
        raise ModelMismatch(f"application {application.name}: {error}") from error
    finally:
        torch.set_rng_state(random)
        torch.set_grad_enabled(grad)
    return flat


def _build_again(build: Callable[[int], nn.Module], seed: int, application: Application) -> nn.Module:
    try:
        return build(seed)
    except Exception as error:
        raise refusal(
            application, f"build_model fails when it is called again, as trainer, server and a reset do: {error!r}"
        ) from error


class _Check:
    """Two models with the same bytes, `first` to be published and `second` to be trained."""

    def __init__(
        self,
        first: FlatModel,
        second: FlatModel,
        application: Application,
        config: ContinuousTrainingConfig,
        folder: str,
    ) -> None:
        self.first = first
        self.second = second
        self.application = application
        self.config = config
        self.folder = folder
        self.observations = [torch.zeros(2, application.inputs)]

    def run(self, other_process: Witness | None) -> None:
        """Raise ApplicationError for the first fault."""
        self.first.layout.check(self.second.layout, "a second model that was built")
        check_forward(self.first.model, self.application)
        self._check_parameters()
        self.second.flat.copy_(self.first.flat)
        self._choose_observations()
        self._check_alone()
        self._check_untouched(self.first, self.second.flat, "in eval mode")
        self._check_same(
            "two models that are built with different seeds compute different logits from the same weights"
        )
        self._check_hidden()
        self._check_infer(self.first)
        trial = self._train(other_process is not None)
        own = self.first.flat
        self.first.bind(self.second.flat)
        self._check_same("after a training step another model computes different logits from the same weights")
        if trial.stir(self.second):
            self._check_same("with other weights, the same in both, two models compute different logits")
            self._check_infer(self.first)
        if other_process is not None:
            self._check_elsewhere(other_process)
        self.first.bind(own)

    def _choose_observations(self) -> None:
        """Those of several kinds that the model takes, and what it gives for each: always the same, and numbers."""
        random, features = np.random.default_rng(0), self.application.inputs
        kinds = (
            np.ones((2, features)),
            random.random((4, features)),
            random.uniform(-1.0, 1.0, (4, features)),
            random.integers(0, 2, (4, features)),
            random.normal(0.0, 10.0, (4, features)),
        )
        possible = [torch.zeros(2, features), *(torch.from_numpy(kind.astype(np.float32)) for kind in kinds)]
        self.observations, allowed = [], [0] * len(self.application.heads)
        for rows in possible:
            try:
                logits = self._logits(self.first, rows)
            except Exception:
                # Ones or negative numbers may be no observation at all for this model; zeros were tried before.
                continue
            if difference(logits, self._logits(self.first, rows, seed=2)) > SAME:
                raise self._error(
                    "forward gives other logits for the same observations each time (in eval mode): it draws random "
                    "numbers or remembers what came before; do so only `if self.training`"
                )
            if not self.observations:
                self._check_numbers(logits)
            self.observations.append(rows)
            allowed = [most + int((~masked(head)).sum()) for most, head in zip(allowed, logits, strict=True)]
        for head, choices in zip(self.application.heads, allowed, strict=True):
            if not choices:
                raise self._error(
                    f"every choice of {head.name} is masked for every observation that was tried (zeros, ones, random "
                    "ones): leave at least one allowed"
                )

    def _check_numbers(self, logits: Heads) -> None:
        for head, values in zip(self.application.heads, logits, strict=True):
            bad = values[np.isnan(values) | (values == np.inf)]
            if bad.size:
                raise self._error(
                    f"the logits of {head.name} are {bad[0]} for an observation of zeros: they must be numbers (a "
                    "choice that is masked has MASKED); guard a division or a logarithm by clamp or a small constant"
                )

    def _check_alone(self) -> None:
        """The server decides one at a time, the trainer learns from many at once."""
        for rows in self.observations:
            together = [head[:1] for head in self._logits(self.first, rows)]
            try:
                alone = self._logits(self.first, rows[:1])
            except Exception as error:
                raise self._error(f"forward fails for a single observation, [1, {rows.shape[1]}]: {error!r}") from error
            if difference(alone, together) > ALONE:
                raise self._error(
                    "the logits for an observation depend on the others in its batch: compute each row by itself (a "
                    "batch norm with running statistics, no mean over the batch)"
                )

    def _check_untouched(self, flat: FlatModel, expected: torch.Tensor, when: str) -> None:
        """The flat buffer is where the tensors are, and `expected` (uint8 [bytes]) is what it holds."""
        for name in flat.cut_off():
            raise self._error(
                f"forward replaces {name} by another tensor ({when}), which is not published: write into it (`copy_`, "
                "`mul_`, `add_`), only `if self.training`"
            )
        if torch.equal(flat.flat, expected):
            return
        for spec in flat.layout.specs:
            place = slice(spec.offset, spec.offset + spec.length)
            if not torch.equal(flat.flat[place], expected[place]):
                raise self._error(f"forward writes into {spec.name} {when}: do so only `if self.training`")

    def _check_same(self, what: str) -> None:
        worst = 0.0
        for rows in self.observations:
            try:
                first = self._logits(self.first, rows)
            except Exception:
                continue
            try:
                worst = max(worst, difference(first, self._logits(self.second, rows)))
            except Exception as error:
                raise self._error(f"{what}: one gives logits, the other raises {error!r}") from error
        if worst > SAME:
            found = self._differing()
            names = "; ".join(f"{name} ({hidden.kind}) differs" for name, hidden in list(found.items())[:3])
            raise self._error(
                f"{what} (by {worst:.2g}): {names or 'no attribute does, so look at global variables'}. What "
                "forward needs must be a parameter or a persistent buffer, or the same in every process"
            )

    def _check_elsewhere(self, witness: Witness) -> None:
        """Another process must compute the same from the weights that are in force."""
        answers = witness.logits(self.first.flat, self.observations)
        if answers is None:
            return
        worst = max(
            difference(self._logits(self.first, rows), heads)
            for rows, heads in zip(self.observations, answers, strict=True)
        )
        if worst > CLOSE:
            raise self._error(
                f"another process computes different logits from the same weights (by {worst:.2g}): something is drawn "
                "at random when the application's module is imported or created; draw it in build_model and keep it "
                "in a persistent buffer (register_buffer)"
            )

    def _differing(self) -> dict[str, Hidden]:
        """What both models hold, do not carry and do not have in common; tensors first."""
        ours, theirs = hidden_state(self.first.model), hidden_state(self.second.model)
        found = {name: item for name, item in {**theirs, **ours}.items() if not item.equals(_other(name, ours, theirs))}
        return dict(sorted(found.items(), key=lambda pair: not isinstance(pair[1].value, torch.Tensor)))

    def _check_parameters(self) -> None:
        for name, hidden in hidden_state(self.first.model).items():
            if hidden.is_trained:
                raise self._error(
                    f"{name} ({hidden.kind}) wants gradients and is no parameter of the model, so it is neither "
                    "trained nor published: use nn.Parameter, nn.ParameterList, nn.ModuleList, or requires_grad_(False)"
                )

    def _check_hidden(self) -> None:
        """Every hidden tensor must be the same in both, whether or not these observations needed it."""
        ours, theirs = hidden_state(self.first.model), hidden_state(self.second.model)
        for name, hidden in self._differing().items():
            if isinstance(hidden.value, torch.Tensor) and name in ours and name in theirs:
                raise self._error(
                    f"{name} ({hidden.kind}) differs between two models that are built, and is not published: the "
                    "server would compute with another one than the trainer; make it a persistent buffer "
                    "(register_buffer)"
                )

    def _check_infer(self, flat: FlatModel) -> None:
        """`infer` must agree with `forward`, with whatever weights."""
        infer = method_infer(flat.model)
        if infer is None:
            return
        name = f"{type(flat.model).__name__}.infer"
        coarse = (torch.finfo(tensor.dtype).eps for tensor in flat.model.parameters() if tensor.is_floating_point())
        close = max((CLOSE, *(16 * step for step in coarse)))
        advice = "mend it, or rename it if it is not meant for `infer(features: float32[F])`"
        for rows in self.observations:
            expected = self._logits(flat, rows)
            for index, row in enumerate(rows.numpy()):
                try:
                    found = [np.asarray(head) for head in infer(row)]
                except Exception as error:
                    raise self._error(f"{name} raises {error!r} for float32 [{row.size}]; {advice}") from error
                shapes = [(head.shape, str(head.dtype)) for head in found]
                wanted = [((head.size,), "float32") for head in self.application.heads]
                if shapes != wanted:
                    raise self._error(f"{name} gives {shapes} where the heads are {wanted}; {advice}")
                apart = difference([head[index] for head in expected], found)
                if apart > close:
                    raise self._error(f"{name} and forward differ by {apart:.2g} for {row[:8]}; {advice}")

    def _train(self, own_process: bool) -> Trial:
        """Two steps of the configured learner on `second`, with decisions in between."""
        name = learner_name(self.config.learner, self.application.heads)
        if name == "reward_regression" and not isinstance(self.second.model, RewardEstimates):
            # That learner trains what the instance puts around this model; any learner shows whether it can be trained.
            name = "policy_gradient"
        learner = load_learner(name, self.folder)
        trial = Trial(self.application, self.config, self.observations, lambda rows: self._logits(self.first, rows))
        before = {name: bool(torch.isfinite(value).all()) for name, value in self._trainable()}

        def attempt() -> None:
            self.second.flat.copy_(self.first.flat)
            take_steps(learner, self.second.model, trial, lambda: self._logits(self.second, self.observations[0]))

        failure = trial.attempt_twice(attempt, own_process)
        if failure is not None:
            raise self._error(f"the model cannot be trained: {trial.reason(self.second.model, failure)}") from failure
        for name in self.second.cut_off():
            raise self._error(
                f"training replaces {name} by another tensor, which is not published: forward and learner must write "
                "into it (`copy_`, `mul_`, `add_`)"
            )
        if torch.equal(self.first.flat, self.second.flat):
            reason = trial.missing_gradient(self.second.model)
            if reason:
                raise self._error(f"training changes nothing: {reason}")
        for name, value in self._trainable():
            if before[name] and not bool(torch.isfinite(value).all()):
                raise self._error(
                    f"a training step makes {name} infinite or NaN; are there logits or losses of infinity?"
                )
        return trial

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, value) for name, value in self.second.model.named_parameters() if value.requires_grad]

    def _logits(self, flat: FlatModel, rows: torch.Tensor, seed: int = 1) -> Heads:
        """As the server computes them, or the trainer between two steps, with random numbers in a known state."""
        torch.manual_seed(seed)
        with torch.no_grad():
            return [np.array(head.numpy()) for head in flat.model.eval()(rows)]

    def _error(self, text: str) -> ApplicationError:
        return refusal(self.application, text)


def _other(name: str, ours: dict[str, Hidden], theirs: dict[str, Hidden]) -> Hidden | None:
    return theirs.get(name) if name in ours else None


def masked(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of these logits say that a choice must not be taken."""
    result: NDArray[np.bool_] = logits <= MASKED / 2
    return result


def difference(ours: Heads, theirs: Heads) -> float:
    """How far two models' logits are apart, for logits of size 1; infinite if different choices are masked."""
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.shape != other.shape:
            return float("inf")
        kinds = [(masked(logits), np.isnan(logits), logits == np.inf) for logits in (mine, other)]
        if not all(np.array_equal(*pair) for pair in zip(*kinds, strict=True)):
            return float("inf")
        plain = ~(kinds[0][0] | kinds[0][1] | kinds[0][2])
        if plain.any():
            scale = 1.0 + float(np.abs(mine[plain]).max())
            worst = max(worst, float(np.abs(mine[plain] - other[plain]).max()) / scale)
    return worst
