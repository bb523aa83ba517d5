"""Answers that no cache may keep: they have what one caller has stored, or a secret that is shown once."""

from typing import Any

import orjson
from aiohttp import web


def respond(value: Any, status: int = 200) -> web.Response:
    """Return a value as JSON."""
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json", headers=headers)
