"""What can be seen of a model without running it: where its tensors are and who else has a say in them."""

from __future__ import annotations

import torch
from torch import nn

from ..application import Application
from ..errors import ApplicationError
from ..weights.flat_model import FlatModel
from ..weights.model_tensors import carried_tensors


def refusal(application: Application, text: str) -> ApplicationError:
    """The error that says so, in the application's name."""
    return ApplicationError(f"application {application.name}: {text}")


def check_module(module: object, application: Application) -> None:
    """What can be seen without running it."""
    if not isinstance(module, nn.Module):
        raise refusal(application, f"build_model must return a torch.nn.Module; it returns {type(module).__name__}")
    if torch.get_default_dtype() != torch.float32:
        raise refusal(
            application,
            f"torch's default dtype is {torch.get_default_dtype()} once the model is built; the learner needs "
            "torch.float32: leave out torch.set_default_dtype and convert inside the model",
        )
    carried = carried_tensors(module)
    for name, tensor in carried.items():
        if tensor.device.type not in ("cpu", "meta"):
            raise refusal(application, f"{name} is on the device {tensor.device}: build the model on the CPU")
    for name, part in module.named_modules():
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            raise refusal(
                application,
                f"{name or 'the model'} ({type(part).__name__}) has get_extra_state, which is not published: keep that "
                "state in a buffer (register_buffer)",
            )
    _check_state_dict(module, carried, application)


def _check_state_dict(module: nn.Module, carried: dict[str, torch.Tensor], application: Application) -> None:
    """Hooks and overrides may only agree with the tensors that the modules hold."""
    try:
        shown = dict(module.state_dict(keep_vars=True))
    except Exception as error:
        raise refusal(application, f"the model's state_dict() raises {error!r}") from error
    for name in [*carried, *shown]:
        mine, theirs = carried.get(name), shown.get(name)
        if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
            if mine is theirs or (mine.data_ptr() == theirs.data_ptr() and mine.shape == theirs.shape):
                continue
            what = f"gives another tensor for {name} than the module holds"
        else:
            what = f"leaves out {name}" if name in carried else f"adds {name}, which is no parameter or buffer"
        raise refusal(
            application, f"the model's state_dict ({_who_changes(module)}) {what}; leave it as torch.nn.Module has it"
        )


def _who_changes(module: nn.Module) -> str:
    """Which module has a say in `state_dict`."""
    for name, part in module.named_modules():
        where = f"{name}: " if name else ""
        if part._state_dict_hooks or getattr(part, "_state_dict_pre_hooks", None):
            return f"{where}a state_dict hook of {type(part).__name__}"
        for method in ("state_dict", "_save_to_state_dict"):
            if getattr(type(part), method) is not getattr(nn.Module, method):
                return f"{where}{type(part).__name__}.{method}"
    return type(module).__name__


def check_two_builds(flat: FlatModel, other: nn.Module, application: Application) -> None:
    """Trainer, server and a reset each build a model: they must be two, with the same tensors, and share none."""
    if other is flat.model:
        raise refusal(application, "build_model returns the same object each time; it must build a new model")
    check_module(other, application)
    mine = {id(tensor): name for name, tensor in carried_tensors(flat.model).items()}
    for name, tensor in carried_tensors(other).items():
        if id(tensor) in mine:
            raise refusal(application, f"{name} is one tensor in every model that is built: create it in build_model")
