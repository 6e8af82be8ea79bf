"""The application: what a visitor is interested in, and which of 20 products stands on top of the page."""

from tandem import ActionHead, Application

INTERESTS = (
    "books", "music", "garden", "sports", "kitchen", "travel", "children", "pets", "cars", "films", "fashion", "games",
)  # fmt: skip
PRODUCTS = (
    "novel", "atlas", "cookbook", "headphones", "record player", "guitar", "seeds", "spade", "garden chair", "ball",
    "racket", "running shoes", "knife", "frying pan", "teapot", "suitcase", "backpack", "tent", "lamp", "clock",
)  # fmt: skip


def create(settings, folder):
    return Application("shop", INTERESTS, (ActionHead("product", len(PRODUCTS), PRODUCTS),))
