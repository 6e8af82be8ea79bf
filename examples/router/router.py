"""The application: which of the back ends that are there now answers a prompt."""

from tandem import Application, CandidateHead

PROMPT = ("length", "difficulty", "is_code", "hurry")
BACK_END = ("price", "speed", "strength", "code")
"""What is known of a back end: from its price list and a benchmark, say. A new one is judged by these at once."""


def create(settings, folder):
    return Application("router", PROMPT, (CandidateHead("back_end", 8, BACK_END),))
