"""The application: what a shop offers a customer, checked by a gate before it is sent, rewarded by the next visit."""

import math

import numpy as np
import torch
from tandem import ActionHead, Application, Verdict

OFFERS = ("nothing", "coupon", "free delivery")
COSTS = (0.0, 0.1, 0.2)


class Offer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, len(OFFERS)))

    def forward(self, observations):
        return (self.layers(observations),)


def encode(visit):
    """Features float32[3], 0..1. Raising refuses the visit: `decide` passes it on to its caller."""
    values = np.array([visit["basket"], visit["spent"], visit["hour"] / 23], dtype=np.float32)
    if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()):
        raise ValueError("basket and spent are 0..1, hour is 0..23")
    return values


class Budget:
    """The gate: nothing is offered that costs more than the basket is likely to bring."""

    components = ("cost",)

    def evaluate(self, visit, action, key, version):
        cost = COSTS[action[0]]
        expected = visit["basket"] - cost
        if cost > 0.5:
            return Verdict(False, "never", -math.inf, (cost,))
        return Verdict(expected >= 0, "worth it" if expected >= 0 else "too dear", expected, (cost,))

    def sent(self, key, action):
        pass

    def failed(self, key, action):
        pass

    def rewarded(self, reward):
        pass

    def forget(self, key):
        pass

    def statistics(self):
        return {}

    def clear(self):
        pass


class NextVisit:
    """The reward: what the customer spent until the next visit, less what the offer cost."""

    context_dtype = np.dtype([("spent", "<f4")])

    def context(self, visit):
        return np.array((visit["spent"],), self.context_dtype)

    def reward(self, context, action, executed, visit):
        more = float(visit["spent"]) - float(context["spent"])
        cost = COSTS[action[0]] if executed else 0.0
        return more - cost, {"more": more, "cost": cost}


def create(settings, folder):
    return Application(
        name="shop",
        features=("basket", "spent", "hour"),
        heads=(ActionHead("offer", len(OFFERS), OFFERS),),
        build_model=Offer,
        encode=encode,
        build_gate=Budget,
        build_reward=NextVisit,
        gate_components=Budget.components,
        context_dtype=NextVisit.context_dtype,
    )
