"""What became of the decisions, looked at with every tick: what recent versions earn, and which choices are gone."""

from __future__ import annotations

from ...shared.configuration.config import ContinuousTrainingConfig
from ...shared.experiences.sampler import ReplayReader
from ...shared.instance import Instance
from ...shared.telemetry.training_metrics import TrainingMetrics
from ...shared.training.watch import LearningWatch
from ...shared.weights.flat_model import FlatModel
from .choice_watch import ChoiceWatch
from .intake import Intake
from .reward_guard import RewardGuard, RewardScores, Score


class DecisionWatch:
    """Scores the newest decisions, and says when they earn clearly less than those of a version that was saved."""

    def __init__(
        self,
        instance: Instance,
        config: ContinuousTrainingConfig,
        reader: ReplayReader,
        intake: Intake,
        flat: FlatModel,
    ) -> None:
        control = instance.control
        first = int(control.get("first_version"))
        self.guard = RewardGuard(config)
        self._scores = RewardScores(control, reader, config.live_guard_window, first, intake.bounds, intake.check)
        self._choices = ChoiceWatch(control, flat, instance.application)

    def look(self, learning: LearningWatch, metrics: TrainingMetrics) -> tuple[int, str] | None:
        """Take in what the newest decisions earned; (version to go back to, why) if that is clearly too little."""
        learning.tick()
        new = self._scores.read_new()
        self._choices.tick(self._scores.fresh)
        score, guard = self._scores.score(), self.guard
        metrics.record_score(score, guard.best, guard.best_version)
        version = guard.compare(score, new)
        if not version or score is None:
            return None
        best = guard.best
        guard.restart()
        return version, f"decisions earn {score.mean:.3f}, and earned {best.mean if best else 0.0:.3f}"

    def score(self) -> Score | None:
        """What the newest decisions earn, if there are enough."""
        return self._scores.score()

    def restart(self, version: int) -> None:
        """Weights that did not come from a step are in force from `version` on: what was before is not compared."""
        self._scores.restart(version)

    def configure(self, config: ContinuousTrainingConfig) -> None:
        """Take over the settings that are reloadable."""
        self.guard.config = config
        self._scores.resize(config.live_guard_window)
