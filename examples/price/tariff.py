"""The application: the price of a ride, from how many want one and how many drivers there are."""

from tandem import Application, GaussianHead

LOWEST, HIGHEST = 5.0, 25.0


def create(settings, folder):
    return Application("tariff", ("demand", "drivers"), (GaussianHead("price", LOWEST, HIGHEST),))
