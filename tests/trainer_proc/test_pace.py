"""How much a tick trains."""

from __future__ import annotations

from dataclasses import replace

from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.trainer_proc.pace import Pace


class Lanes:
    """A control segment's counts of completed experiences."""

    def __init__(self) -> None:
        self.head = 0

    def get(self, name: str) -> int:
        """The field's value: two lanes, the second one empty."""
        return {"lanes": 2, "lane.0.head": self.head, "lane.1.head": 0}[name]


CONFIG = ContinuousTrainingConfig()


def ticks(lanes: Lanes, pace: Pace, new: int, count: int, config: ContinuousTrainingConfig = CONFIG) -> list[int]:
    """Samples that each of `count` ticks trains on, with `new` experiences between two."""
    found = []
    for _ in range(count):
        lanes.head += new
        steps, batch = pace.plan(config)
        found.append(steps * batch)
    return found


def test_the_data_set_the_pace() -> None:
    """32 samples for each new experience, on average, whatever the rate."""
    for new in (50, 200, 1000):
        lanes = Lanes()
        found = ticks(lanes, Pace(lanes, True), new, 20)  # type: ignore[arg-type]
        assert 0.9 < sum(found) / (20 * new * CONFIG.update_to_data) < 1.1


def test_where_time_is_short_batches_grow_before_steps_are_lost() -> None:
    """With steps of 50 ms at most ten fit into half a second."""
    lanes = Lanes()
    pace = Pace(lanes, True)  # type: ignore[arg-type]
    pace.step_seconds = 0.05
    lanes.head = 1000
    steps, batch = pace.plan(CONFIG)
    assert steps <= 10
    assert batch > CONFIG.batch_size
    assert steps * batch > 0.8 * 1000 * CONFIG.update_to_data
    assert pace.is_bounded
    assert ticks(lanes, pace, 100_000, 1)[0] <= 10 * 4096
    assert ticks(lanes, pace, 20, 1)[0] == 20 * CONFIG.update_to_data
    assert not pace.is_bounded


def test_the_budget_is_a_share_of_the_interval() -> None:
    """A tenth of a second allows two steps of 50 ms, and half of a longer interval more."""
    lanes = Lanes()
    for config, most in (
        (replace(CONFIG, tick_budget=0.1), 2),
        (replace(CONFIG, tick_budget=1.0), 20),
        (replace(CONFIG, training_interval=4.0), 40),
    ):
        pace = Pace(lanes, True)  # type: ignore[arg-type]
        pace.step_seconds = 0.05
        lanes.head += 100_000
        assert pace.plan(config)[0] == most
        assert pace.is_bounded


def test_one_step_a_tick_at_least_and_none_when_nothing_is_new() -> None:
    """A single new experience is worth a step; after some ticks without any there is none."""
    lanes = Lanes()
    pace = Pace(lanes, True)  # type: ignore[arg-type]
    assert all(samples > 0 for samples in ticks(lanes, pace, 1, 10))
    assert ticks(lanes, pace, 0, 10)[-1] == 0
    assert ticks(lanes, pace, 1, 1)[0] > 0
    assert all(samples > 0 for samples in ticks(lanes, pace, 0, 10, replace(CONFIG, train_when_idle=True)))
    assert ticks(lanes, Pace(lanes, False), 0, 10, replace(CONFIG, train_when_idle=False))[-1] == 0  # type: ignore[arg-type]


def test_a_tick_comes_early_while_there_are_few_experiences() -> None:
    """Eight of the first, and three in a hundred later on."""
    lanes = Lanes()
    pace = Pace(lanes, True)  # type: ignore[arg-type]
    lanes.head = 7
    assert not pace.is_early()
    lanes.head = 8
    assert pace.is_early()
    lanes.head = 10_000
    pace.plan(CONFIG)
    lanes.head = 10_300
    assert not pace.is_early()
    lanes.head = 10_320
    assert pace.is_early()


def test_a_learner_of_its_own_decisions_trains_at_every_tick_on_batches_of_the_size_that_is_set() -> None:
    """Also while nothing is new, as the plan says; where time is short on four times as many, and no more."""
    lanes = Lanes()
    pace = Pace(lanes, False)  # type: ignore[arg-type]
    assert ticks(lanes, pace, 0, 20) == [CONFIG.batch_size] * 20
    assert ticks(lanes, pace, 1, 10) == [CONFIG.batch_size] * 10
    lanes.head += 50
    steps, batch = pace.plan(CONFIG)
    assert batch == CONFIG.batch_size
    assert steps * batch > 0.8 * 50 * CONFIG.update_to_data
    pace.step_seconds = 0.05
    lanes.head += 1000
    assert pace.plan(CONFIG) == (10, 4 * CONFIG.batch_size)


def test_steps_are_published_together_while_they_are_short() -> None:
    """Eight at most, 50 ms at most, never more than are left, and one that takes longer by itself."""
    pace = Pace(Lanes(), True)  # type: ignore[arg-type]
    pace.step_seconds = 0.001
    assert (pace.together(100), pace.together(3)) == (8, 3)
    pace.step_seconds = 0.02
    assert pace.together(100) == 2
    pace.step_seconds = 0.3
    assert pace.together(100) == 1
