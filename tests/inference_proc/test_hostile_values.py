"""Whatever values a host passes: converted, or refused with one clear error before anything is half done."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hostile_kit import (
    GOOD,
    MISTAKES,
    NO_ACTIONS,
    NO_NUMBERS,
    NO_TEXTS,
    OBSERVATIONS,
    REWARDS,
    TOO_LARGE,
    Vexing,
    accounted,
    rows,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tandem.inference_proc.decision import Decision
from tandem.inference_proc.engine import Engine
from tandem.shared.instance import Instance

Made = Callable[..., tuple[Engine, dict[str, Any]]]


class Name(str, enum.Enum):
    ROOM = "room"


@pytest.mark.filterwarnings("error")
def test_every_kind_of_real_number_is_a_reward(hostile: Made) -> None:
    """Python's, numpy's and torch's numbers complete the decision, once, and are stored as float32."""
    engine, _ = hostile()
    for count, (value, stored) in enumerate(REWARDS, start=1):
        before = engine.lane.get("reward_sum")
        engine.decide("a", GOOD)
        assert engine.reward("a", value) is True, repr(value)
        assert rows(engine)["actual_reward"][-1] == np.float32(stored)
        assert (engine.lane.get("reward_count"), engine.lane.get("pending")) == (count, 0)
        assert engine.lane.get("reward_sum") == before + stored
    assert accounted(engine)


def test_a_reward_that_is_not_finite_as_float32_is_refused(hostile: Made) -> None:
    """False, counted; at the deciding process and at another; the decision goes on waiting and can be rewarded."""
    engine, _ = hostile()
    other = Engine(Instance(engine.instance.name))
    try:
        engine.decide("a", GOOD)
        for count, value in enumerate(TOO_LARGE, start=1):
            assert engine.reward("a", value) is False, repr(value)
            assert other.reward("a", value) is False
            engine.beat()
            assert [end.lane.get("refused_rewards") for end in (engine, other)] == [count, count]
        assert engine.lane.get("pending") == 1
        assert engine.reward("a", 0.5)
        assert rows(engine)["actual_reward"].tolist() == [0.5]
        assert accounted(engine)
    finally:
        other.close()


def test_what_is_no_number_is_no_reward(hostile: Made) -> None:
    """One ValueError that names the reward; nothing changed."""
    engine, _ = hostile()
    engine.decide("a", GOOD)
    before = engine.get_stats()
    for value in NO_NUMBERS:
        with pytest.raises(ValueError, match=r"^reward: .*must be a number"):
            engine.reward("a", value)
    assert engine.get_stats() == before
    assert engine.reward("a", 0.5)
    assert rows(engine)["actual_reward"].tolist() == [0.5]


def test_a_key_is_text(hostile: Made) -> None:
    """Anything else is refused by name at every entry, and nothing is decided, remembered or counted.

    Only `decide` takes None: a decision without a key.
    """
    engine, _ = hostile(gate=True)
    before = engine.get_stats()
    for key in NO_TEXTS:
        for call in (
            lambda key=key: engine.decide(5 if key is None else key, GOOD),
            lambda key=key: engine.reward(key, 0.5),
            lambda key=key: engine.failed(key, (1, 1)),
            lambda key=key: engine.forget(key),
        ):
            with pytest.raises(ValueError, match=r"^key: .* must be text"):
                call()
    assert engine.get_stats() == before
    assert engine.decide("a", GOOD).send


def test_a_territory_is_text_or_the_key(hostile: Made) -> None:
    """Anything else is refused by name before anything is recorded; None and the empty text mean the key."""
    engine, _ = hostile()
    before = engine.get_stats()
    for territory in [*(value for value in NO_TEXTS if value is not None), Name]:
        with pytest.raises(ValueError, match=r"^territory_id: .* must be text"):
            engine.decide("home", GOOD, territory)  # type: ignore[arg-type]
    assert engine.get_stats() == before
    for given_name in (None, "", Name.ROOM):
        engine.decide("home", GOOD, given_name)  # type: ignore[arg-type]
        engine.reward("home", 0)
    assert rows(engine)["key"].tolist() == [b"home", b"home", b"room"]


ODD_KEYS = ["", "a\0b", "a\0", "\0", "\U0001f600" * 200, "x" * 10**6, "\ud800", "a\nb", np.str_("k"), Name.ROOM, "%s{}"]


def test_any_text_is_a_key(hostile: Made) -> None:
    """Empty, long, with NUL or half a character: a decision is rewarded under its key and under nothing like it."""
    engine, _ = hostile()
    for number, key in enumerate(ODD_KEYS, start=1):
        decision = engine.decide(key, [number, 0])
        assert type(decision.key) is str
        assert not engine.reward(f"{str.__str__(key)} ", 0.1)
        assert engine.reward(key, number)
        assert (rows(engine)["observation"][-1][0], rows(engine)["actual_reward"][-1]) == (number, number)
        engine.decide(key, GOOD, key)
        engine.forget(key)
        assert engine.lane.get("dropped") == number
    assert accounted(engine)


def test_keys_that_differ_by_nul_are_different_keys(hostile: Made) -> None:
    """Each has its own decision and its own reward."""
    engine, _ = hostile()
    keys = ["a", "a\0", "a\0\0", "", "\0"]
    for number, key in enumerate(keys):
        engine.decide(key, [number, 0.0], "t")
    for number, key in enumerate(keys):
        assert engine.reward(key, number)
    assert [(row["observation"][0], row["actual_reward"]) for row in rows(engine)] == [(n, n) for n in range(5)]


def test_a_text_of_another_class_is_the_same_key(hostile: Made) -> None:
    """A numpy text or an enumeration's is the text that it stands for."""
    engine, _ = hostile()
    engine.decide(np.str_("room"), GOOD)
    assert engine.reward(Name.ROOM, 0.5)
    assert not engine.reward("room", 0.5)


def test_an_action_is_whole_numbers(hostile: Made) -> None:
    """`failed` refuses anything else by name, and takes arrays of them."""
    engine, _ = hostile()
    decided = engine.decide("a", GOOD).action
    for action in NO_ACTIONS:
        with pytest.raises(ValueError, match=r"^action: .* must be the choices"):
            engine.failed("a", action)
    assert engine.failed("a", np.array(decided))  # type: ignore[arg-type]
    assert rows(engine)["actual_reward"].tolist() == [-0.5]


@pytest.mark.parametrize("encode", [False, True], ids=["plain", "of the application"])
@pytest.mark.filterwarnings("error")
def test_every_kind_of_numbers_is_an_observation(hostile: Made, encode: bool) -> None:
    """Whatever the observation or the application's `encode` brings is stored as float32, exactly as it was meant."""
    engine, hooks = hostile(encode=encode)
    hooks["encode"] = lambda seen: seen
    for observation, stored in OBSERVATIONS:
        engine.decide("a", observation)
        engine.reward("a", 0.5)
        assert rows(engine)[-1]["observation"].tolist() == np.array(stored, np.float32).tolist(), repr(observation)
    assert len(rows(engine)) == len(OBSERVATIONS)


@pytest.mark.parametrize("encode", [False, True], ids=["plain", "of the application"])
@pytest.mark.filterwarnings("error")
def test_a_wrong_observation_is_named_and_leaves_no_trace(hostile: Made, encode: bool) -> None:
    """A ValueError says which feature and why. The key's last decision is not rewarded by it, nor anything recorded."""
    engine, hooks = hostile(encode=encode, reward=True)
    hooks["encode"] = lambda seen: seen
    engine.decide("a", [0.25, 0.0])
    before = engine.get_stats()
    for observation, text in MISTAKES:
        with pytest.raises(ValueError, match=rf"^observation: .*({text})"):
            engine.decide("a", observation)
    assert engine.get_stats() == before
    assert engine.decide("a", [0.75, 0.0]).last_reward == 0.5
    assert rows(engine)["actual_reward"].tolist() == [0.5]
    assert accounted(engine)


def bad_requests() -> list[Any]:
    requests: list[Any] = [(key, GOOD, "") for key in NO_TEXTS if key is not None]
    requests += [("b", GOOD, territory) for territory in NO_TEXTS if territory is not None]
    requests += [("b", observation, "") for observation, _ in MISTAKES]
    return [*requests, (), ("b",), ("b", GOOD), ("b", GOOD, "", 1), None, 5, "b", Vexing()]


def test_one_bad_request_fails_alone(hostile: Made) -> None:
    """Whatever is wrong with it: it gets a ValueError in its place, the others are decided and stored as alone."""
    engine, _ = hostile()
    for number, bad in enumerate(bad_requests()):
        seen = [number, 0.5], [0.5, number]
        first, refused, last = engine.decide_many([("g1", seen[0], "t1"), bad, ("g2", seen[1], "t2")])
        assert isinstance(refused, ValueError)
        assert isinstance(first, Decision)
        assert isinstance(last, Decision)
        assert engine.reward("g1", 1)
        assert engine.reward("g2", 2)
        for row, decision, observation in zip(rows(engine)[-2:], (first, last), seen, strict=True):
            assert row["observation"].tolist() == observation
            assert tuple(row["action"]) == decision.action
    assert engine.get_stats()["decided"] == 2 * len(bad_requests())
    assert accounted(engine)


anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
        st.complex_numbers(), st.decimals(), st.fractions(),
        st.sampled_from([10**400, 3.5e38, 1e39, -1e300, "\ud800", "a\0"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip


def answer(call: Callable[[], Any]) -> Any:
    """What the call returns, or the beginning of its ValueError."""
    try:
        return call()
    except ValueError as error:
        return str(error).partition(": ")[0]


def test_nothing_that_one_asks_touches_another(hostile: Made) -> None:
    """Values of every kind at every entry: a result or a ValueError, and the innocent are decided and rewarded."""
    engine, _ = hostile(gate=True)
    asked = 0

    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(key=anything, observation=anything, territory=anything, value=anything, request=anything)
    def attack(key: Any, observation: Any, territory: Any, value: Any, request: Any) -> None:
        nonlocal asked
        asked += 1
        innocent = (f"innocent {asked}", [asked, 0.5], "")
        results = engine.decide_many([(key, observation, territory), innocent, request, ("k", observation, "")])
        assert isinstance(results[1], Decision)
        assert all(isinstance(result, (Decision, ValueError)) for result in results)
        allowed = (True, False, None, "key", "reward", "action")
        assert answer(lambda: engine.reward(key, value)) in allowed
        assert answer(lambda: engine.reward("k", value)) in allowed
        assert answer(lambda: engine.failed(key, value)) in allowed
        assert answer(lambda: engine.forget(key)) in allowed
        assert engine.reward(innocent[0], 0.5) is True
        assert rows(engine)[-1]["observation"].tolist() == [asked, 0.5]
        assert accounted(engine)

    attack()
    assert engine.get_stats()["errors"] == 0
    assert bool(np.isfinite(rows(engine)["observation"]).all())
