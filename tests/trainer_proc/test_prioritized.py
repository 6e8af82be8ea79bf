"""Prioritized sampling hears what each experience lost in the step that used it."""

from __future__ import annotations

import numpy as np


def test_losses_reach_the_strategy(toy_trainer, fill):
    """After a step the experiences of its batch have weights by their own losses, and the others the largest."""
    trainer = toy_trainer(sampling="prioritized", batch_size=32)
    fill(trainer.buffer, 64)
    strategy = trainer.buffer.reader.strategy
    assert strategy._losses == {}
    assert trainer.train_step()
    known, losses = strategy._losses[trainer.buffer.lane.index]
    trained = known > 0
    assert np.count_nonzero(trained) == 32
    assert len(np.unique(losses[trained])) > 8, "the losses of a batch are all alike"
