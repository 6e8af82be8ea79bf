"""A small client of a Tandem server's HTTP calls, sync and async. Imports httpx and nothing of the rest of the package.

with Client("http://127.0.0.1:8010") as server:
    decision = server.decide([1.5, -2.0])
    server.reward(decision, 1.0)
"""

from ..shared.errors import need_extra

need_extra("client", "tandem.client", ("httpx",))

from .answers import ApiError as ApiError  # noqa: E402 - after the extra was asked for
from .answers import Decision as Decision  # noqa: E402
from .asynchronous import AsyncClient as AsyncClient  # noqa: E402
from .synchronous import Client as Client  # noqa: E402
