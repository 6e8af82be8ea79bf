"""Loading an application: three failures told apart, and what it must offer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tandem.shared.application import ActionHead, Application, check_forward, load_application
from tandem.shared.errors import ApplicationError


def test_an_application_is_created_with_its_settings(toy_application: str, tmp_path: Path) -> None:
    """`create(settings, folder)` is called and its parts come back."""
    application = load_application(toy_application, {}, tmp_path)
    assert isinstance(application, Application)
    assert application.name == "toy"
    assert [head.size for head in application.heads] == [5, 2]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "../x", "1a", "a..b"])
def test_a_badly_written_name_is_refused(name: str, tmp_path: Path) -> None:
    """Before anything is imported."""
    with pytest.raises(ApplicationError, match="is not a module name"):
        load_application(name, {}, tmp_path)


def test_a_module_that_does_not_exist(tmp_path: Path) -> None:
    """It is named, the parent missing or the child."""
    for name in ("no_such_module_at_all", "no_such_package.module", "tandem.nothing_here"):
        with pytest.raises(ApplicationError, match="no module named"):
            load_application(name, {}, tmp_path)


def test_a_module_without_create(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(ApplicationError, match="create"):
        load_application("tandem.shared.memory.layout", {}, tmp_path)


def test_an_error_inside_the_module_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing import in the user's own module is the user's to see."""
    (tmp_path / "broken_application.py").write_text("import module_that_is_missing_inside\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="module_that_is_missing_inside"):
        load_application("broken_application", {}, tmp_path)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x[:, :3], "it returns one Tensor, not a tuple"),
        (lambda x: (x[:, :3], x[:, :2], x), "it returns 3 of them"),
        (lambda x: (x[:, :3], x[:, :1]), "for second and 2 observations it returns torch.float32 [2, 1]"),
        (lambda x: (x[:, :3].double(), x[:, :2]), "for first and 2 observations it returns torch.float64 [2, 3]"),
        (lambda x: x @ x, "it raises RuntimeError"),
    ],
)
def test_a_forward_that_does_not_fit_the_heads_is_named(forward: Any, message: str) -> None:
    """The message says what was promised and what came."""
    import torch

    class Model(torch.nn.Module):
        def forward(self, observations: torch.Tensor) -> Any:
            return forward(observations)

    heads = (ActionHead("first", 3), ActionHead("second", 2))
    application = Application(name="toy", features=tuple("abcd"), heads=heads, build_model=Model)
    with pytest.raises(ApplicationError, match="first \\[B, 3\\], second \\[B, 2\\]") as caught:
        check_forward(Model(), application)
    assert message in str(caught.value)


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (0.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_reward_range_that_is_none_is_refused(bounds: tuple[float, float]) -> None:
    """Two finite numbers, the lower one first."""
    with pytest.raises(ApplicationError, match=r"reward_range is .*the lower one first"):
        Application("a", ("x",), (ActionHead("arm", 2),), lambda: None, reward_range=bounds)  # type: ignore[arg-type,return-value]
