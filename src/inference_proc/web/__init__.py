"""The engine over HTTP and WebSocket. Imports the engine; the engine never imports this."""

from ...shared.errors import need_extra

need_extra("server", "the bundled server", ("starlette", "uvicorn", "websockets", "msgspec"))
