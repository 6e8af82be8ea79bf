"""Run an application in one process, without `ctl`: for unit tests and notebooks.

    with tandem.testing.run(create) as app:
        decision = app.decide("visitor", [0.2, 0.9])
        app.reward("visitor", 1.0)
        app.train()

Everything but the second process is real: shared memory under a name of its own, the recorded experience, the learner,
the guards and the published weights.
"""

from .running import Running as Running
from .running import run as run
