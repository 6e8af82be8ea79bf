"""The engine decides, records, completes and degrades; a failure around the policy is never raised into the host."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.errors import LaneBusy
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.instance import Instance
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.publisher import Publisher

EngineOf = Callable[..., Engine]


def observe(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def balanced(stats: dict[str, Any]) -> bool:
    """Every decision is accounted for."""
    parts = ("completed", "pending_count", "expired", "superseded", "dropped", "rejected", "lost")
    return bool(stats["decided"] == sum(stats[part] for part in parts))


def publish(engine: Engine, version: int, value: float) -> None:
    """Publish weights that all have one value."""
    flat = FlatModel(engine.application.build_model())
    with torch.no_grad():
        for tensor in flat.state().values():
            tensor.fill_(value)
    Publisher(engine.instance.open_slots(flat.layout)).publish(flat.flat, version)


def test_a_reward_completes_its_decision(engine_of: EngineOf) -> None:
    """A decision waits under its key until its reward comes, once."""
    engine = engine_of()
    decision = engine.decide("a", observe(1, 2, 3, 4), "home")
    assert decision.send
    assert decision.version == 0
    assert engine.get_stats()["pending_count"] == 1
    assert engine.reward("a", 0.5)
    assert not engine.reward("a", 0.5)
    (experience,) = ExperienceReplayBuffer(engine.instance).sample(8)
    assert experience.actual_reward == 0.5
    assert experience.territory_id == "home"
    assert experience.action == decision.action
    assert experience.probability == pytest.approx(decision.probability)
    assert np.array_equal(experience.observation, observe(1, 2, 3, 4))
    assert balanced(engine.get_stats())


def test_every_decision_uses_the_newest_version(engine_of: EngineOf) -> None:
    """The first decision after a publish is made with the new weights and says so, in the record too."""
    engine = engine_of()
    for version in range(1, 12):
        publish(engine, version, version / 10)
        decision = engine.decide("a", observe(1, 1, 1, 1))
        assert decision.version == version
        weights = engine.get_model_for_inference().state_dict()["layer.weight"]
        assert torch.equal(weights, torch.full_like(weights, version / 10))
        engine.reward("a", 0.0)
    recent = ExperienceReplayBuffer(engine.instance).reader.recent(20)
    assert [int(row["version"]) for row in recent] == list(range(1, 12))


def test_a_large_model_is_read_in_place(engine_of: EngineOf) -> None:
    """Above `weights.in_place_bytes` the parameters are the slot's own memory."""
    engine = engine_of(weights={"in_place_bytes": 1})
    publish(engine, 1, 0.25)
    assert engine.decide("a", observe(1, 1, 1, 1)).version == 1
    weight = dict(engine.get_model_for_inference().named_parameters())["layer.weight"]
    slot = engine._live.slots.data[1]
    assert slot.data_ptr() <= weight.data_ptr() < slot.data_ptr() + slot.numel()


def test_the_next_observation_rewards_the_previous_decision(engine_of: EngineOf, rewarding_application: str) -> None:
    """With a reward calculator an observation completes the key's pending decision before the new one is made."""
    engine = engine_of(application=rewarding_application)
    first = engine.decide("a", observe(0.1, 1))
    assert first.last_reward is None
    second = engine.decide("a", observe(0.4, 1))
    assert second.last_reward == pytest.approx(0.3)
    assert second.recent_rewards == (second.last_reward,)
    stats = engine.get_stats()
    assert (stats["size"], stats["pending_count"]) == (1, 1)
    assert engine.gate.log[-2][0] == "rewarded"
    assert balanced(stats)


def test_a_blocked_decision_is_complete_at_once(engine_of: EngineOf, rewarding_application: str) -> None:
    """A WAIT never becomes pending, keeps no actual reward, and its window's reward is still reported."""
    engine = engine_of(application=rewarding_application)
    decision = engine.decide("a", observe(0.1, -1))
    assert not decision.send
    assert engine.get_stats()["pending_count"] == 0
    (experience,) = ExperienceReplayBuffer(engine.instance).sample(8)
    assert experience.gate_decision == "WAIT"
    assert experience.actual_reward is None
    assert experience.is_completed
    assert engine.decide("a", observe(0.3, -1)).last_reward == pytest.approx(0.2)


def test_an_unaffordable_action_is_stored_with_the_floor(engine_of: EngineOf, rewarding_application: str) -> None:
    """An expected reward of -inf is answered as it is and stored as -1."""
    engine = engine_of(application=rewarding_application)
    assert engine.decide("a", observe(0.1, 0.25)).expected_reward == -math.inf
    (experience,) = ExperienceReplayBuffer(engine.instance).sample(8)
    assert experience.expected_reward == -1.0


def test_waits_are_counted_but_not_stored_if_not_trained_on(engine_of: EngineOf, rewarding_application: str) -> None:
    """With `train_on_wait: false` a blocked decision leaves a count and no experience."""
    engine = engine_of(application=rewarding_application, trainer={"train_on_wait": False})
    engine.decide("a", observe(0.1, -1))
    stats = engine.get_stats()
    assert (stats["size"], stats["untrained"], stats["wait_count"]) == (0, 1, 1)
    assert balanced(stats)


def test_a_broken_gate_holds_the_action_back(engine_of: EngineOf, rewarding_application: str) -> None:
    """A gate that raises degrades the decision to a WAIT and is counted; nothing reaches the caller."""
    engine = engine_of(application=rewarding_application)
    decision = engine.decide("a", observe(0.95, 1))
    assert (decision.send, decision.reason) == (False, "gate_error")
    assert engine.get_stats()["errors"] == 1
    assert engine.decide("a", observe(0.1, 1)).send


def test_a_broken_reward_supersedes_the_pending_decision(engine_of: EngineOf, rewarding_application: str) -> None:
    """If the reward cannot be computed the next SEND replaces the pending decision, and that is counted."""
    engine = engine_of(application=rewarding_application)
    engine.decide("a", observe(0.1, 1))
    assert engine.decide("a", observe(0.75, 1)).last_reward is None
    stats = engine.get_stats()
    assert (stats["superseded"], stats["pending_count"], stats["errors"]) == (1, 1, 1)
    assert balanced(stats)


def test_a_failed_action_earns_the_failed_reward_once(engine_of: EngineOf, rewarding_application: str) -> None:
    """An action that the client could not execute is completed with -0.5 and undone in the gate."""
    engine = engine_of(application=rewarding_application)
    action = engine.decide("a", observe(0.1, 1)).action
    assert not engine.failed("a", (action[0] + 1,))
    assert engine.failed("a", action)
    assert not engine.failed("a", action)
    (experience,) = ExperienceReplayBuffer(engine.instance).sample(8)
    assert experience.actual_reward == -0.5
    assert ("failed", "a", action) in engine.gate.log
    engine.decide("a", observe(0.4, 1))
    assert engine.get_stats()["size"] == 1


@pytest.mark.parametrize("enabled", [True, False])
def test_a_forgotten_key_earns_the_default(engine_of: EngineOf, enabled: bool) -> None:
    """Nobody will report a success any more. In coupled training it is trained on at once."""
    engine = engine_of(inference={"default_reward": 0.5}, trainer={"enabled": enabled})
    version = engine.model_version
    engine.decide("a", observe(1, 2, 3, 4))
    engine.forget("a")
    assert rewards_of(engine) == [0.5]
    assert (engine.model_version == version) == enabled
    assert balanced(engine.get_stats())


def test_a_forgotten_key_drops_its_pending_decision(engine_of: EngineOf, rewarding_application: str) -> None:
    """What dies with a connection is dropped and counted, and a later observation rewards nothing."""
    engine = engine_of(application=rewarding_application)
    engine.decide("a", observe(0.1, 1))
    engine.forget("a")
    assert engine.decide("a", observe(0.4, 1)).last_reward is None
    stats = engine.get_stats()
    assert stats["dropped"] == 1
    assert balanced(stats)


def test_old_pending_decisions_expire(engine_of: EngineOf, wait_until: Callable[..., Any]) -> None:
    """A decision that waited longer than `pending_timeout` is dropped, not rewarded."""
    engine = engine_of(inference={"pending_timeout": 0.05})
    engine.decide("a", observe(1, 2, 3, 4))

    def expired() -> bool:
        engine.beat()
        return bool(engine.get_stats()["expired"])

    wait_until(expired, "the decision expired")
    assert not engine.reward("a", 1.0)
    assert balanced(engine.get_stats())


def test_keys_are_bounded(engine_of: EngineOf, rewarding_application: str) -> None:
    """Keys from outside cannot grow memory: the least recently used is forgotten, but not what waits."""
    engine = engine_of(application=rewarding_application, inference={"max_keys": 3})
    for key in "abcdef":
        engine.decide(key, observe(0.1, 1))
    assert len(engine._recorder._keys) == 3
    assert engine.reward("a", 1.0)
    assert engine.decide("b", observe(0.4, 1)).last_reward == pytest.approx(0.3)
    action = tuple(int(choice) for choice in engine.lane.pending.entry(b"c")["action"])
    assert engine.failed("c", action)
    stats = engine.get_stats()
    assert (stats["size"], stats["dropped"]) == (3, 0)
    assert balanced(stats)


def rewards_of(engine: Engine) -> list[float]:
    rows = ReplayReader(engine.control, engine.instance.records, 1).recent(10_000)
    return sorted(rows["actual_reward"].tolist())


def test_who_is_never_rewarded_is_learned_from(engine_of: EngineOf, wait_until: Callable[..., Any]) -> None:
    """`default_reward`: where only successes are reported, the others earn it when their time is up, once."""
    engine = engine_of(inference={"pending_timeout": 0.05, "default_reward": 0})
    for number in range(200):
        engine.decide(f"visitor-{number}", observe(1, 2, 3, 4))
    assert all(engine.reward(f"visitor-{number}", 1) for number in range(0, 200, 10))

    def settled() -> bool:
        engine.beat()
        return not engine.get_stats()["pending_count"]

    wait_until(settled, "nobody waits any more")
    assert rewards_of(engine) == [0.0] * 180 + [1.0] * 20
    assert not engine.reward("visitor-1", 1)
    assert not engine.reward("visitor-0", 1)
    stats = engine.get_stats()
    assert (stats["defaulted"], stats["expired"], stats["late"], stats["unmatched"]) == (180, 0, 1, 1)
    assert balanced(stats)


def test_a_click_and_then_a_purchase(engine_of: EngineOf) -> None:
    """`final=False` adds to what the decision has earned; the last one completes it."""
    engine = engine_of()
    engine.decide("a", observe(1, 2, 3, 4))
    assert engine.reward("a", 0.25, final=False)
    assert engine.reward("a", np.float32(0.5), final=np.False_)
    assert engine.get_stats()["pending_count"] == 1
    assert engine.reward("a", 2.0)
    assert not engine.reward("a", 2.0, final=False)
    assert rewards_of(engine) == [2.75]
    stats = engine.get_stats()
    assert (stats["partial"], stats["unmatched"]) == (2, 1)
    for wrong in (0, 1, None, "no"):
        with pytest.raises(ValueError, match=r"final: .* must be True or False"):
            engine.reward("a", 1.0, final=wrong)


def test_a_decision_comes_between_many_that_expire(engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that gives up thousands is away between a few and the next few: another thread decides then."""
    engine, more = engine_of(), [True, True, True, False]

    def pause(seconds: float) -> None:
        thread = threading.Thread(target=engine.decide, args=("a", observe(1, 2, 3, 4)))
        thread.start()
        thread.join(10)

    monkeypatch.setattr(engine._recorder, "expire", lambda: more.pop(0))
    monkeypatch.setattr("time.sleep", pause)
    engine.beat()
    assert not more
    assert engine.get_stats()["decided"] == 3


@pytest.mark.parametrize(("enabled", "at_once"), [(True, 2), (False, 1)])
def test_a_decision_waits_for_one_training_step_at_most(
    engine_of: EngineOf, wait_until: Callable[..., Any], enabled: bool, at_once: int
) -> None:
    """Coupled training takes a step for each decision that expires with a default reward: others come in between."""
    engine = engine_of(inference={"pending_timeout": 0.05, "default_reward": 0.5}, trainer={"enabled": enabled})
    engine.decide_many([(key, observe(1, 2, 3, 4), "") for key in "ab"])
    wait_until(lambda: engine._recorder.expire() or engine.get_stats()["defaulted"], "one expired")
    assert engine.get_stats()["defaulted"] == at_once
    engine.beat()
    assert engine.get_stats()["defaulted"] == 2


def test_an_observation_completes_what_was_earned_in_part(engine_of: EngineOf, rewarding_application: str) -> None:
    """The application's reward for the window is the last one, and is added up with what came before."""
    engine = engine_of(application=rewarding_application)
    engine.decide("a", observe(0.1, 1))
    assert engine.reward("a", 1.0, final=False)
    assert engine.decide("a", observe(0.4, 1)).last_reward == pytest.approx(0.3)
    assert rewards_of(engine) == [pytest.approx(1.3)]


def test_an_observation_that_comes_too_late_rewards_nothing(
    engine_of: EngineOf, rewarding_application: str, wait_until: Callable[..., Any]
) -> None:
    """The decision has earned the default by then."""
    engine = engine_of(application=rewarding_application, inference={"pending_timeout": 0.05, "default_reward": -1})
    engine.decide("a", observe(0.1, 1))

    def settled() -> bool:
        engine.beat()
        return bool(engine.get_stats()["defaulted"])

    wait_until(settled, "it earned the default")
    assert engine.decide("a", observe(0.4, 1)).last_reward is None
    assert rewards_of(engine) == [-1.0]
    assert balanced(engine.get_stats())


def test_a_batch_is_decided_like_its_parts(engine_of: EngineOf, rewarding_application: str) -> None:
    """`decide_many` keeps the order, decides a key that comes twice twice, and isolates a bad observation."""
    engine = engine_of(application=rewarding_application)
    results = engine.decide_many(
        [("a", observe(0.1, 1), ""), ("b", "nonsense", ""), ("c", observe(0.2, -1), ""), ("a", observe(0.3, 1), "")]
    )
    assert isinstance(results[1], Exception)
    first, third, fourth = (result for result in results if not isinstance(result, Exception))
    assert (first.key, third.key, fourth.key) == ("a", "c", "a")
    assert (first.send, third.send) == (True, False)
    assert fourth.last_reward == pytest.approx(0.2)
    assert engine.get_stats()["decided"] == 3
    with pytest.raises(ValueError, match="nonsense"):
        engine.decide("b", "nonsense")


def test_a_reward_reaches_the_process_that_decided(engine_of: EngineOf) -> None:
    """A reward given to another lane's engine completes the decision once, and never twice."""
    decider = engine_of()
    other = Engine(Instance(decider.instance.name))
    try:
        decider.decide("a", observe(1, 2, 3, 4))
        assert other.reward("a", 0.5)
        assert not other.reward("a", 0.7)
        assert not other.reward("b", 0.5)
        decider.beat()
        stats = decider.get_stats()
        assert (stats["size"], stats["pending_count"]) == (1, 0)
        assert [row.actual_reward for row in ExperienceReplayBuffer(decider.instance).sample(8)] == [0.5]
        assert balanced(stats)
    finally:
        other.close()


def test_an_observation_at_another_process_rewards_too(engine_of: EngineOf, rewarding_application: str) -> None:
    """A key that moves to another server process takes its pending decision's context along."""
    decider = engine_of(application=rewarding_application)
    other = Engine(Instance(decider.instance.name))
    try:
        decider.decide("a", observe(0.1, 1))
        assert other.decide("a", observe(0.4, 1)).last_reward == pytest.approx(0.3)
        decider.beat()
        assert decider.lane.get("delivered") == 1
        assert balanced(decider.get_stats())
    finally:
        other.close()


def test_pending_decisions_outlive_their_process(engine_of: EngineOf, rewarding_application: str) -> None:
    """The lane's next owner adopts what is pending and rewards it by the next observation."""
    first = engine_of(application=rewarding_application)
    first.decide("a", observe(0.1, 1))
    first.close()
    second = Engine(Instance(first.instance.name))
    try:
        assert second.decide("a", observe(0.4, 1)).last_reward == pytest.approx(0.3)
        assert balanced(second.get_stats())
    finally:
        second.close()


def test_lanes_run_out_with_a_clear_error(engine_of: EngineOf) -> None:
    """One server process too many is refused, naming the holders."""
    engine = engine_of(inference={"lanes": 1})
    with pytest.raises(LaneBusy, match=r"inference\.lanes"):
        Engine(Instance(engine.instance.name))


def test_threads_share_an_engine(engine_of: EngineOf) -> None:
    """Threads of one server lose no decision and no reward."""
    engine = engine_of(trainer={"buffer_capacity": 5000})

    def serve(name: str) -> None:
        for number in range(200):
            engine.decide(f"{name}-{number % 7}", observe(1, 2, 3, 4))
            engine.reward(f"{name}-{number % 7}", 1.0)

    threads = [threading.Thread(target=serve, args=(str(index),)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = engine.get_stats()
    assert (stats["decided"], stats["completed"], stats["size"]) == (800, 800, 800)


def test_a_reset_empties_and_never_lowers_the_version(engine_of: EngineOf, rewarding_application: str) -> None:
    """Coupled reset: new weights, a new generation, empty buffers, a higher version."""
    engine = engine_of(application=rewarding_application, trainer={"enabled": False})
    engine.decide("a", observe(0.1, 1))
    engine.decide("a", observe(0.2, 1))
    before = engine.model_version
    assert engine.reset() > before
    stats = engine.get_stats()
    assert (stats["size"], stats["pending_count"]) == (0, 0)
    assert engine.control.get("generation") == 1
    assert balanced(stats)


def test_the_gate_leaks_only_when_told_to(engine_of: EngineOf, rewarding_application: str) -> None:
    """With a leak probability of 1 every affordable blocked action is sent and says so; an unaffordable one never."""
    engine = engine_of(application=rewarding_application, inference={"gate_leak_probability": 1.0})
    leaked = engine.decide("a", observe(0.1, -1))
    assert (leaked.send, leaked.reason) == (True, "gate_leak")
    assert not engine.decide("b", observe(0.1, 0.25)).send


def test_features_of_the_wrong_shape_are_refused(engine_of: EngineOf) -> None:
    """In a batch the others are decided, and nothing is recorded of what was refused."""
    engine = engine_of()
    with pytest.raises(ValueError, match=r"not float32 \(4,\)"):
        engine.decide("a", observe(1, 2, 3))
    good, bad, other = engine.decide_many(
        [("a", observe(1, 2, 3, 4), ""), ("b", observe(1), ""), ("c", [1, 2, 3, 4], "")]
    )
    assert isinstance(bad, ValueError)
    assert not isinstance(good, Exception)
    assert not isinstance(other, Exception)
    assert engine.get_stats()["decided"] == 2


def test_reloaded_settings_reach_a_running_engine(engine_of: EngineOf) -> None:
    """After a reload the next beat takes over what may change; what may not stays."""
    engine = engine_of()
    plain = engine.config.to_dict()
    plain["inference"].update(temperature=3.0, exploration_floor=0.25, max_keys=7, default_reward=-2.0)
    engine.instance.data_dir.mkdir(parents=True)
    (engine.instance.data_dir / "config.json").write_text(json.dumps(plain))
    engine.beat()
    assert engine.policy.temperature == 1.0
    engine.control.add("trainer.config_revision")
    engine.beat()
    assert (engine.policy.temperature, engine.policy.floor) == (3.0, 0.25)
    engine.decide("a", observe(1, 2, 3, 4))
    assert engine.get_stats()["lane"]["decided"] == 1
    engine.forget("a")
    assert rewards_of(engine) == [-2.0]


@pytest.mark.parametrize("claim", [Engine, ExperienceReplayBuffer])
def test_what_an_adopted_lane_settles_earns_by_the_settings_in_force(engine_of: EngineOf, claim: type[Any]) -> None:
    """Rewards and newer decisions that came while nobody owned the lane are taken in as the lane is claimed."""
    dead = engine_of()
    plain = dead.config.to_dict()
    plain["inference"].update(default_reward=-2.0, reward_aggregation="last")
    dead.instance.data_dir.mkdir(parents=True)
    (dead.instance.data_dir / "config.json").write_text(json.dumps(plain))
    dead.control.add("trainer.config_revision")
    other = Engine(Instance(dead.instance.name))
    for key in ("rewarded", "decided again"):
        dead.decide(key, observe(1, 2, 3, 4))
    dead.close()
    assert other.reward("rewarded", 1.0, final=False)
    assert other.reward("rewarded", 8.0)
    other.decide("decided again", observe(1, 2, 3, 4))
    successor = claim(Instance(dead.instance.name))
    assert successor.lane.index == dead.lane.index
    assert rewards_of(other) == [-2.0, 8.0]
    successor.lane.release()
    other.close()


def test_a_reset_from_elsewhere_empties_this_process_too(engine_of: EngineOf, rewarding_application: str) -> None:
    """An operator's reset or another server's: the next decision or beat forgets what was before it."""
    engine = engine_of(application=rewarding_application)
    for value in (0.1, 0.2):
        engine.decide("a", observe(value, 1))
    engine.beat()
    assert (engine.get_stats()["size"], engine.get_stats()["pending_count"]) == (1, 1)
    engine.control.add("generation")
    assert engine.decide("a", observe(0.4, 1)).last_reward is None
    engine.beat()
    assert (engine.get_stats()["size"], engine.get_stats()["pending_count"]) == (0, 1), "kept: it was decided after"
    engine.control.add("generation")
    engine.beat()
    assert engine.get_stats()["pending_count"] == 0
    assert balanced(engine.get_stats())
    engine.reset()
    engine.control.add("generation")
    engine.decide("a", observe(0.1, 1))
    engine.beat()
    assert engine.get_stats()["pending_count"] == 1, "its own reset is not taken for another's"


def test_a_gate_does_not_remember_decisions_without_a_key(engine_of: EngineOf, rewarding_application: str) -> None:
    """A gate that keeps something for each key is told to drop that of a key that nobody can name again."""
    engine = engine_of(application=rewarding_application)
    gate: Any = engine.gate
    assert engine.decide("a", observe(0.5, 0.5)).send
    decisions = engine.decide_many([(None, observe(0.5, 0.5), "")] * 3)
    assert [decision.send for decision in decisions if not isinstance(decision, Exception)] == [True] * 3
    remembered = set()
    for what, *key in gate.log:
        (remembered.add if what == "sent" else remembered.discard)(key[0])
    assert len([key for what, *key in gate.log if what == "sent"]) == 4
    assert remembered == {"a"}
