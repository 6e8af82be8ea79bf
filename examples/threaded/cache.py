"""The application: whether to keep a document in a cache, and for how long."""

import torch
from tandem import ActionHead, Application


class Keep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh())
        self.keep = torch.nn.Linear(8, 2)
        self.time = torch.nn.Linear(8, 4)

    def forward(self, observations):
        hidden = self.trunk(observations)
        return self.keep(hidden), self.time(hidden)


def create(settings, folder):
    heads = (ActionHead("keep", 2, ("no", "yes")), ActionHead("minutes", 4, ("1", "5", "20", "60")))
    return Application("cache", ("size", "hits", "age"), heads, Keep)
