"""The application: which of three teasers a visitor of a news site sees."""

import torch
from tandem import ActionHead, Application

TEASERS = ("politics", "sports", "weather")


class Choose(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, len(TEASERS))

    def forward(self, visits):
        return (self.layer(visits),)


def create(settings, folder):
    return Application("teasers", ("hour", "phone", "scrolled"), (ActionHead("teaser", 3, TEASERS),), Choose)
