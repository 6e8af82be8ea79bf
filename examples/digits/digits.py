"""The application: 64 pixels of a handwritten digit in, one of ten digits out."""

from tandem import ActionHead, Application

PIXELS = tuple(f"pixel {row},{column}" for row in range(8) for column in range(8))


def create(settings, folder):
    return Application("digits", PIXELS, (ActionHead("digit", 10, tuple("0123456789")),))
