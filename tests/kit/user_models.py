"""Small models as users write them: those whose bytes do not carry them, and those that are sound.

Each is a class or function that builds one, for 4 features and a head `arm` of 3 choices. BAD maps its name to the
words by which a refusal must name the fault.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tandem.shared.application import MASKED, ActionHead, Application
from tandem.shared.weights.parameter_arrays import ParameterArrays
from torch import Tensor, nn

FEATURES, CHOICES = 4, 3
BAD: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {}
GOOD: dict[str, Callable[[], nn.Module]] = {}


def application_of(build: Callable[[], Any]) -> Application:
    """An application with this model."""
    return Application("shop", tuple("abcd"), (ActionHead("arm", CHOICES),), build)


def bad(*words: str) -> Callable[[Any], Any]:
    def add(build: Any) -> Any:
        BAD[build.__name__] = (build, words)
        return build

    return add


def good(build: Any) -> Any:
    GOOD[build.__name__] = build
    return build


class Plain(nn.Module):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CHOICES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations),)


good(Plain)


class Projected(nn.Module):
    """Logits from a projection that `project` makes of an observation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, CHOICES)

    def project(self, observations: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(torch.tanh(self.project(observations))),)


# State that is built anew in each process.


@bad("projection", "persistent=False", "persistent buffer")
class UnsavedBuffer(Projected):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(FEATURES, 8), persistent=False)

    def project(self, observations: Tensor) -> Tensor:
        return observations @ self.projection  # type: ignore[operator]


@bad("projection", "persistent=False")
class UnsavedBufferOfACornerCase(UnsavedBuffer):
    """Needed for observations that no probe hits."""

    def project(self, observations: Tensor) -> Tensor:
        corner = (observations[:, :1] == 7.25).float()
        return observations.repeat(1, 2) + corner * (observations @ self.projection)


@bad("projection", "plain attribute")
class PlainAttribute(Projected):
    def __init__(self) -> None:
        super().__init__()
        self.projection = torch.randn(FEATURES, 8)

    def project(self, observations: Tensor) -> Tensor:
        return observations @ self.projection


@bad("projection", "plain attribute")
class BehindZeros(PlainAttribute):
    """The last layer starts at zero: at first nobody sees what it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.layer.weight)


@bad("projection", "plain attribute")
class NumpyBehindZeros(Projected):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.layer.weight)
        self.projection = np.random.default_rng().normal(size=(FEATURES, 8)).astype(np.float32)

    def project(self, observations: Tensor) -> Tensor:
        return observations @ torch.from_numpy(self.projection)


@bad("tables['first'][1]", "plain attribute")
class NestedAttribute(Projected):
    def __init__(self) -> None:
        super().__init__()
        self.tables = {"first": [torch.zeros(2), torch.randn(FEATURES, 8)]}

    def project(self, observations: Tensor) -> Tensor:
        return observations @ self.tables["first"][1]


@bad("part.matrix")
class InAnObject(Projected):
    def __init__(self) -> None:
        super().__init__()

        class Part:
            matrix = None

        self.part: Any = Part()
        self.part.matrix = torch.randn(FEATURES, 8)

    def project(self, observations: Tensor) -> Tensor:
        return observations @ self.part.matrix  # type: ignore[no-any-return]


@bad("function[matrix]")
class InAClosure(Projected):
    def __init__(self) -> None:
        super().__init__()
        matrix = torch.randn(FEATURES, 8)
        self.function = lambda observations: observations @ matrix

    def project(self, observations: Tensor) -> Tensor:
        return self.function(observations)  # type: ignore[no-any-return]


@bad("scale")
class RandomNumber(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = float(torch.rand(()))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) * self.scale,)


_built: dict[int, Tensor] = {}


@bad("global variables")
class GlobalVariable(Plain):
    """What a module-level table holds for each model that was built."""

    def __init__(self) -> None:
        super().__init__()
        _built[id(self)] = torch.randn(CHOICES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) + _built[id(self)],)


@bad("blocks[0].weight", "nn.ModuleList")
class ModulesInAList(Projected):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [nn.Linear(FEATURES, 8)]

    def project(self, observations: Tensor) -> Tensor:
        return self.blocks[0](observations)  # type: ignore[no-any-return]


@bad("blocks['a'].0.weight", "nn.ModuleList")
class EqualModulesInADict(Projected):
    """The same in every process, at first."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = {"a": nn.Sequential(nn.Linear(FEATURES, 8))}
        nn.init.ones_(self.blocks["a"][0].weight)
        nn.init.zeros_(self.blocks["a"][0].bias)

    def project(self, observations: Tensor) -> Tensor:
        return self.blocks["a"](observations)  # type: ignore[no-any-return]


@bad("weights[0]", "nn.ParameterList")
class ParametersInAList(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.weights = [nn.Parameter(torch.zeros(CHOICES))]

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) + self.weights[0],)


@bad("get_extra_state", "register_buffer")
class ExtraState(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def get_extra_state(self) -> Any:
        return {"scale": self.scale}

    def set_extra_state(self, state: Any) -> None:
        self.scale = state["scale"]


@bad("state_dict hook", "leaves out layer.weight")
class HookThatRemoves(Plain):
    def __init__(self) -> None:
        super().__init__()

        def remove(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
            state.pop("layer.weight")

        self._register_state_dict_hook(remove)


@bad("HookedBelow", "state_dict hook", "layer.weight")
def HookThatReplaces() -> nn.Module:
    class HookedBelow(nn.Linear):
        pass

    model = Plain()
    model.layer = HookedBelow(FEATURES, CHOICES)

    def replace(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        state[f"{prefix}weight"] = state[f"{prefix}weight"].clone()

    model.layer._register_state_dict_hook(replace)
    return model


@bad("OverriddenStateDict.state_dict", "leaves out")
class OverriddenStateDict(Plain):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {f"my.{name}": value for name, value in super().state_dict(*args, **kwargs).items()}


# What happens in forward.


@bad("mean", "replaces", "copy_")
class BufferAssignedAnew(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        self.mean = 0.9 * self.mean + 0.1 * observations.mean(dim=0).detach()
        return (self.layer(observations),)


@bad("mean", "training replaces")
class BufferAssignedAnewInTraining(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * observations.mean(dim=0)
        return (self.layer(observations - self.mean),)


@good
class ParameterMovedInTraining(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        if self.training:
            self.layer.weight.data = self.layer.weight.data * 1.0
        return (self.layer(observations),)


@bad("calls", "writes into")
class CountsCalls(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return (self.layer(observations),)


@bad("mean", "after a training step")
class AttributeChangedByTraining(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(FEATURES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * observations.mean(dim=0)
        return (self.layer(observations - self.mean),)


@bad("steps", "after a training step")
class NumberChangedByTraining(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        self.steps += self.training
        return (self.layer(observations) / (1 + self.steps),)


@bad("each time", "if self.training")
class NoiseInEval(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) + 0.1 * torch.randn(CHOICES),)


@bad("each time")
class Remembers(Plain):
    """The hidden state of a recurrent cell, kept from one decision to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, FEATURES)
        self.state = torch.zeros(1, FEATURES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        self.state = self.cell(observations[:1], self.state).detach()
        return (self.layer(observations + self.state),)


@bad("depend on the others")
class MeanOverTheBatch(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations - observations.mean(dim=0)),)


@bad("single observation")
class BatchNormWithoutStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES, track_running_stats=False)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(self.norm(observations)),)


# Ties, and tensors that cannot be shared.


@bad("shares memory", "decoder", "layer.weight")
class TiedByTranspose(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Parameter(self.layer.weight.detach().t())

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(self.layer(observations) @ self.decoder.t()),)


@bad("shares memory", "second")
class TiedByTransposeOfASquare(Plain):
    """Same address, same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(FEATURES, FEATURES))
        self.second = nn.Parameter(self.first.detach().t())

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations @ self.first @ self.second),)


@bad("shares memory", "part")
class TiedByASlice(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Parameter(self.layer.weight.detach()[1:])


@bad("scale", "repeats its own memory")
class Expanded(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1).expand(CHOICES))


@bad("tied")
class TiedByAPlainView(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.tied = self.layer.weight.detach().t()

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (observations @ self.tied,)


@bad("layer.weight", "lazy")
class Lazy(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(CHOICES)


@bad("layer.weight", "meta")
class OnMeta(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CHOICES, device="meta")


@bad("angles", "complex64")
class Complex(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("angles", torch.zeros(2, dtype=torch.complex64))


@bad("float64", ".float()")
class Double(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return super().forward(observations.double())


# Two models that are one.

_only = Plain()


@bad("same object")
def Singleton() -> nn.Module:
    return _only


_times: list[int] = []


@bad("called again", "already there")
def OnlyOnce() -> nn.Module:
    _times.append(1)
    if len(_times) % 2 == 0:
        raise ValueError("already there")
    return Plain()


_shared_layer = nn.Linear(FEATURES, CHOICES)


@bad("layer.weight", "one tensor in every model")
def SharedLayer() -> nn.Module:
    model = Plain()
    model.layer = _shared_layer
    return model


@bad("must return a torch.nn.Module", "type")
def TheClassItself() -> Any:
    return Plain


@bad("a second model", "more.weight")
class AnotherShapeEachTime(Plain):
    def __init__(self) -> None:
        super().__init__()
        _shapes.append(len(_shapes))
        self.more = nn.Linear(len(_shapes), 1)


_shapes: list[int] = []

# What cannot be trained or decided from.


@bad("no parameter with requires_grad")
class Frozen(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


@bad("no gradient", "torch.no_grad")
class WithoutGradients(Plain):
    @torch.no_grad()
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return super().forward(observations)


@bad("no gradient", "detach")
class Detached(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations).detach(),)


@bad("no gradient", "torch.set_grad_enabled(False)")
class SwitchesGradientsOff(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        torch.set_grad_enabled(False)
        return super().forward(observations)


@bad("cannot be trained", "a batch of 8")
class GraphIsKept(Plain):
    """A tensor with its graph from the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        logits = self.layer(observations)
        if self.training:
            before, self.last = self.last, logits.mean()
            logits = logits if before is None else logits + before * 0.1
        return (logits,)


@bad("arm are nan", "zeros", "clamp")
class NotANumber(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations / observations.norm(dim=1, keepdim=True)),)


@bad("arm are nan")
class NanInABuffer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(float("nan")))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) * self.scale,)


@bad("every choice of arm is masked")
class AllMasked(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) * 0.0 + MASKED,)


@bad("every choice of arm is masked")
class AllMinusInfinity(Plain):
    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations) * 0.0 - float("inf"),)


@bad("infer and forward differ by 0.")
class WrongInfer(Plain):
    def infer(self, features: Any) -> Any:
        with torch.no_grad():
            return ((self.layer(torch.from_numpy(features)) + 0.01).numpy(),)


@bad("infer and forward differ")
class InferOfOldWeights(Plain):
    """It looks at the parameters once, when it is built or first called."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Any = None

    def infer(self, features: Any) -> Any:
        if self.kept is None:
            self.kept = [self.layer.weight.detach().clone().numpy(), self.layer.bias.detach().clone().numpy()]
        return (self.kept[0] @ features + self.kept[1],)


@bad("infer gives", "rename it")
class InferOfAnotherShape(Plain):
    def infer(self, features: Any) -> Any:
        return (np.zeros(2, np.float32),)


@bad("infer raises", "rename it")
class InferForSomethingElse(Plain):
    def infer(self, prompt: Any, temperature: float) -> Any:
        return prompt


# Sound ones.


@good
class LayerCalledInfer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.infer = nn.Linear(FEATURES, CHOICES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.infer(observations),)


@good
class WithInfer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.arrays = ParameterArrays(self)

    def infer(self, features: Any) -> Any:
        arrays = self.arrays()
        return (arrays["layer.weight"] @ features + arrays["layer.bias"],)


@good
class Tied(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.all = [self.first, self.second.weight]

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(self.second(torch.relu(self.first(observations))) @ self.first.weight.t()),)


@good
class TransposedParameter(Plain):
    """Not contiguous, but nobody else's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(FEATURES, FEATURES).t())

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations @ self.matrix),)


@good
class Layers(nn.Module):
    """Of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.LayerNorm(8), nn.Dropout(0.5)])
        self.cell = nn.GRUCell(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.embedding = nn.Embedding(3, 8)
        self.convolution = nn.Conv1d(1, 2, 3, padding=1)
        self.last = nn.Linear(16, CHOICES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        hidden = observations
        for layer in self.inner:
            hidden = layer(hidden)
        hidden = self.cell(hidden) + self.embedding((observations[:, 0] > 0).long())
        attended, _ = self.attention(hidden[:, None], hidden[:, None], hidden[:, None])
        recurrent, _ = self.gru(attended)
        return (self.last(self.convolution(recurrent).flatten(1)),)


def _normed(norm: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = Plain()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.layer = norm(model.layer)
        return model

    return build


GOOD["weight_norm"] = _normed(nn.utils.parametrizations.weight_norm)
GOOD["spectral_norm"] = _normed(nn.utils.parametrizations.spectral_norm)
GOOD["orthogonal"] = _normed(nn.utils.parametrizations.orthogonal)
GOOD["old_weight_norm"] = _normed(nn.utils.weight_norm)
GOOD["old_spectral_norm"] = _normed(nn.utils.spectral_norm)


@good
class MasksByMinusInfinityInABuffer(Plain):
    """A constant that is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bound", torch.tensor([float("inf"), float("-inf"), float("nan")]))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations).clamp(max=self.bound[0]),)


@good
class MasksByFeatures(Plain):
    """Zeros mask every choice; nobody sends zeros."""

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations).masked_fill(observations[:, :CHOICES] <= 0, MASKED),)


@good
class UnsavedConstant(Plain):
    """The same in every process."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.arange(4.0), persistent=False)
        self.table = torch.ones(FEATURES)
        self.frozen = [nn.Linear(FEATURES, FEATURES).requires_grad_(False)]
        nn.init.eye_(self.frozen[0].weight)
        nn.init.zeros_(self.frozen[0].bias)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(self.frozen[0](observations) + self.steps * self.table),)


@good
class ReadsAnIndex(nn.Module):
    """Negative or large numbers are no observations."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, CHOICES)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.embedding(observations[:, 0].long()),)


@good
class KeepsItsLastLogits(Plain):
    """For people to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None
        self.loss_of_balance: Any = None

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        self.last = self.layer(observations)
        if self.training:
            self.loss_of_balance = self.last.square().mean()
        return (self.last,)


@good
class NoisyInTraining(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("noise", torch.randn(CHOICES))

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        if self.training:
            self.mean.mul_(0.9).add_(observations.mean(dim=0), alpha=0.1)
            return (self.layer(observations - self.mean) + self.noise.normal_(),)
        return (self.layer(observations - self.mean),)


@good
class HarmlessHook(Plain):
    def __init__(self) -> None:
        super().__init__()
        self._register_state_dict_hook(lambda *_: None)


@good
class Half(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.to(torch.bfloat16)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations.bfloat16()).float(),)


@good
class HalfDeep(nn.Module):
    """Sums of many numbers of low precision depend on their order."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(FEATURES, 300), *(nn.Linear(300, 300) for _ in range(4)), nn.Linear(300, CHOICES)]
        self.layers = nn.ModuleList(layers).to(torch.bfloat16)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        hidden = observations.bfloat16()
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden) * 3)
        return (hidden.float() * 30,)


@good
class DoubleInside(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(observations.double()).float(),)


@good
class SparseConstant(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.eye(FEATURES).to_sparse()

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(torch.sparse.mm(self.matrix, observations.t()).t()),)


@good
class FailsOnce(Plain):
    """A transient failure."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        self.calls += self.training
        if self.training and self.calls == 1:
            raise RuntimeError("out of memory")
        return (self.layer(observations),)
