"""The OpenAPI document of the REST endpoints, made from the routes: summaries are the endpoints' docstrings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ... import __version__
from .json_response import JSON
from .v1.messages import CALLS, RewardRequest

_COUNT = {"type": "integer", "minimum": 0}
_SINCE = {"name": "since", "in": "query", "schema": _COUNT, "description": "only steps with a version above this one"}
_LIMIT = {"name": "limit", "in": "query", "schema": {**_COUNT, "maximum": 4096}, "description": "newest steps at most"}
_PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "/api/training/history": [_SINCE, _LIMIT],
    "/api/training/live": [_SINCE, _LIMIT],
    "/api/training/versions": [_SINCE, _LIMIT],
    "/api/training/stream": [_SINCE, _LIMIT],
    "/api/progress": [{"name": "player_id", "in": "query", "schema": {"type": "string"}}],
}
_BODIES: dict[str, dict[str, Any]] = {
    "/logs": {
        "type": "object",
        "required": ["logs"],
        "properties": {"logs": {"type": "array", "items": {}}, "source": {"type": "string"}},
    },
    "/api/training/rollback": {
        "type": "object",
        "properties": {
            "version": {"oneOf": [{"type": "integer", "minimum": 1}, {"enum": ["previous", "best"]}]},
        },
    },
}
_OPTIONAL_BODIES = frozenset({"/api/training/rollback"})
_CHANGES = frozenset(
    {
        "/reset-nn",
        "/api/nn-dashboard/reset",
        "/api/training/pause",
        "/api/training/resume",
        "/api/training/checkpoint",
        "/api/training/rollback",
        "/api/training/reload",
    }
)
"""What needs the token, or a request from this machine if there is none."""
_CONTENT = {
    "/dashboard": "text/html",
    "/api/training/stream": "text/event-stream",
    "/metrics": "text/plain",
}
_STATES = frozenset({"/health", "/readyz"})
"""These answer with the same kind of body whether all is well or not."""
_COMMAND = {
    "400": "the body is not what it should be",
    "404": "there is no such checkpoint",
    "409": "it was not possible",
    "413": "the body is too long",
    "500": "it failed",
    "504": "the trainer does not answer",
}
_STATUSES: dict[str, dict[str, str]] = {
    "/health": {"503": "not started yet"},
    "/readyz": {"503": "not started yet"},
    "/logs": {"204": "taken", "400": "not a list of logs", "413": "too long"},
    "/reset-nn": {"500": "the reset failed", "503": "there is no instance to reset"},
    "/api/training/history": {"400": "a parameter is out of range"},
    "/api/training/live": {"400": "a parameter is out of range"},
    "/api/training/versions": {"400": "a parameter is out of range"},
    "/api/training/stream": {"400": "a parameter is out of range", "503": "too many streams"},
    "/metrics": {"501": "prometheus_client is not installed"},
    "/api/training/checkpoint": _COMMAND,
    "/api/training/rollback": _COMMAND,
    "/api/training/reload": _COMMAND,
}

_CALL_STATUSES = {
    "400": "the request is not what it should be",
    "403": "the token is missing or wrong, or the request comes from elsewhere",
    "413": "the body is too long",
    "500": "the policy could not decide",
    "503": "not now; the same request may be sent again",
}
_REWARD_STATUSES = {"404": "no decision has this id", "410": "the decision waits for no reward any more"}


def describe(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `routes`; routes that are no HTTP endpoints are left out."""
    types = [kind for call in CALLS.values() for kind in call]
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for route in routes:
        if isinstance(route, Route):
            methods = sorted((route.methods or {"GET"}) - {"HEAD"})
            paths[route.path] = {method.lower(): _operation(route, method) for method in methods}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tandem",
            "version": __version__,
            "description": "Decisions go over /v1/decide, or over the WebSocket paths /ws and /ws/{client_id}.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **components,
                "Error": {
                    "type": "object",
                    "required": ["status", "error"],
                    "properties": {"status": {"const": "error"}, "error": {"type": "string"}},
                },
            },
        },
    }


def _operation(route: Route, method: str) -> dict[str, Any]:
    path = route.path
    if path in CALLS:
        return _call(route, method)
    statuses = _STATUSES.get(path, {})
    responses: dict[str, Any] = {}
    if "204" not in statuses:
        media = _CONTENT.get(path, "application/json")
        schema = {"type": "object"} if media == "application/json" else {"type": "string"}
        responses["200"] = {"description": "done", "content": {media: {"schema": schema}}}
    for status, text in statuses.items():
        responses[status] = _state(text) if path in _STATES else _problem(text)
    if "204" in statuses:
        responses["204"] = {"description": statuses["204"]}
    operation: dict[str, Any] = {**_named(route, method), "responses": responses}
    if path in _PARAMETERS:
        operation["parameters"] = _PARAMETERS[path]
    if path in _BODIES and method == "POST":
        content = {"application/json": {"schema": _BODIES[path]}}
        operation["requestBody"] = {"required": path not in _OPTIONAL_BODIES, "content": content}
    if path in _CHANGES:
        operation["security"] = [{}, {"token": []}]
        responses["403"] = _problem("the token is missing or wrong, or the request comes from elsewhere")
    return operation


def _call(route: Route, method: str) -> dict[str, Any]:
    """A call whose messages are types."""
    takes, gives = CALLS[route.path]
    answers = {**_CALL_STATUSES, **(_REWARD_STATUSES if takes is RewardRequest else {})}
    return {
        **_named(route, method),
        "security": [{}, {"token": []}],
        "requestBody": {"required": True, "content": _typed("application/json", takes.__name__)},
        "responses": {
            "200": {"description": "done", "content": _typed("application/json", gives.__name__)},
            **{
                status: {"description": text, "content": _typed("application/problem+json", "Problem")}
                for status, text in sorted(answers.items())
            },
        },
    }


def _named(route: Route, method: str) -> dict[str, Any]:
    return {
        "operationId": f"{method.lower()}{route.path.replace('/', '_').replace('-', '_')}",
        "summary": " ".join((route.endpoint.__doc__ or "").split("\n\n")[0].split()),
    }


def _typed(media: str, name: str) -> dict[str, Any]:
    return {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _problem(text: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": text, "content": content}


def _state(text: str) -> dict[str, Any]:
    schema = {"type": "object", "required": ["status"], "properties": {"status": {"const": "starting"}}}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


class OpenApi:
    """Serves the document of the routes it was given, and of its own."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        own = self.routes()
        self._document = describe([*routes, *own])

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("/openapi.json", self.document)]

    async def document(self, request: Request) -> Response:
        """This description."""
        return JSON(self._document)
