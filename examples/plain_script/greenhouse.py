"""The application: two temperatures in, one of three positions of a vent out."""

import torch
from tandem import ActionHead, Application


class Vent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, observations):
        return (self.layer(observations),)


def create(settings, folder):
    return Application("greenhouse", ("inside", "outside"), (ActionHead("vent", 3, ("shut", "half", "open")),), Vent)
