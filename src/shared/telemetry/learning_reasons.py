"""Why nobody learns although everything runs: the reasons that every surface gives, from the control segment alone.

Standard library only: `ctl status`, `ctl check`, `/health`, the dashboard and Prometheus ask the same function and say
the same. The facts are written by training/watch.py, and those about choices by the trainer's choice_watch.py.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..memory.control import Control

STEPS = 5
"""Steps or ticks in a row from which on a fact is a reason: fewer are a hiccup."""
REJECTED = 20
UNTRAINED = 200
"""Decisions in a row: a gate that blocks most decisions lets one through sooner."""

NAMES = (
    "refused",
    "failing",
    "loss_not_finite",
    "weights_still",
    "nothing_sampled",
    "rewards_missing",
    "rewards_unmatched",
)
"""Every reason by the name that metrics give it, in the order in which they are told."""


def learning_reasons(control: Control) -> dict[str, str]:
    """What keeps the instance from learning, by its name in NAMES: what is wrong, and what would be right.

    Empty if it learns, if it is paused, or if nobody asks it to: without decisions nothing is wrong.
    """
    if control.get("command.pause"):
        return {}
    told = {
        "refused": _refused(control),
        "failing": _failing(control),
        "loss_not_finite": _loss(control),
        "weights_still": _still(control),
        "nothing_sampled": _sampled(control),
        "rewards_missing": _rewards(control),
        "rewards_unmatched": _unmatched(control),
    }
    return {name: text for name, text in told.items() if text}


def learning_notices(control: Control) -> list[str]:
    """What may be meant and may be a fault: shown beside the reasons, and no reason for `degraded`."""
    count = control.get("trainer.abandoned")
    if not count or control.get("command.pause"):
        return []
    head, choice = control.get("trainer.abandoned_head"), control.get("trainer.abandoned_choice")
    earned, recent = control.get("trainer.abandoned_reward"), control.get("trainer.recent_reward")
    window = control.get("trainer.abandoned_window")
    return [
        f"{count} choice(s) are never taken any more, among them choice {choice} of head {_head_name(control, head)}:"
        f" not once in the last {window} decisions, and with a chance below 1 in 1000 where it was taken before. It"
        f" earned {earned:.3g}, the newest decisions earn {recent:.3g}. Nothing more is learned about them: if that is"
        " not meant, raise inference.exploration_floor or trainer.entropy_floor"
    ]


def _head_name(control: Control, index: int) -> str:
    try:
        return str(control.schema["heads"][index][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return str(index)


def _refused(control: Control) -> str:
    count = control.get("trainer.refused_in_row")
    if count < STEPS:
        return ""
    return (
        f"the publish guard refused the candidate of each of the last {count} training steps: the weights stay as they"
        " are; the trainer's log names the tensor and the fault"
    )


def _failing(control: Control) -> str:
    count = control.get("trainer.failed_in_row")
    if count < STEPS:
        return ""
    return f"each of the last {count} training steps raised: the weights stay as they are; see the trainer's log"


def _loss(control: Control) -> str:
    count = control.get("trainer.loss_not_finite")
    if count < STEPS:
        return ""
    return (
        f"the loss of each of the last {count} training steps is not a finite number: look for values that are not"
        " finite, or too large, in the rewards, the observations and the learner"
    )


def _still(control: Control) -> str:
    count = control.get("trainer.still_in_row")
    if count < STEPS:
        return ""
    return (
        f"the weights stand still: each of the last {count} training steps succeeded and published a version, and none"
        " moved the parameters (or momentum alone did, without a gradient); does the learner train the model that it"
        " was given, with gradients that reach the optimiser and a learning rate that is large enough?"
    )


def _sampled(control: Control) -> str:
    if control.get("trainer.unsampled_ticks") >= STEPS:
        return (
            f"nothing is sampled: {control.get('trainer.unsampled')} experiences came in since the last batch, and the"
            " sampler leaves them out: were they decided by versions below first_version (a reset), or more than"
            " trainer.max_policy_lag versions ago?"
        )
    rejected = control.get("trainer.rejected_in_row")
    if rejected >= REJECTED:
        return (
            f"nothing is sampled: the last {rejected} decisions were rejected, for a feature, an expected reward or a"
            " component was not finite, and no experience came in since"
        )
    untrained = control.get("trainer.untrained_in_row")
    if untrained >= UNTRAINED:
        return (
            f"nothing is sampled: the gate blocked the last {untrained} decisions, and trainer.train_on_wait is false:"
            " set it to true, or let the gate send some (inference.gate_leak_probability)"
        )
    return ""


def _rewards(control: Control) -> str:
    if not control.get("trainer.rewards_missing"):
        return ""
    rewarded, missing = control.get("trainer.rewarded"), control.get("trainer.unrewarded")
    return (
        f"rewards are missing for most decisions: {missing} of the last {rewarded + missing} that were sent expired,"
        " were superseded or dropped, and nothing is learned from them. If only successes are reported, set"
        " inference.default_reward to 0, or report 0 for the others; if rewards come later, raise"
        " inference.pending_timeout and let decisions have keys of their own"
    )


def _unmatched(control: Control) -> str:
    if not control.get("trainer.rewards_unmatched"):
        return ""
    found, lost = control.get("trainer.rewards_found"), control.get("trainer.rewards_lost")
    return (
        f"most rewards find no decision: of the last {found + lost} that were reported {lost} came late, or under a key"
        " where nothing waited, and were refused. Report a reward under the key of its decision, once, and within"
        " inference.pending_timeout"
    )
