"""The page at `/`: what a person needs to ask a model, in the browser. It is static, and has no key and no data.

The files are `r1plus_gateway/page`: plain HTML, CSS and JavaScript modules. What the page shows, it asks the API for,
with the key that the person enters. Its policy lets the browser run and load these files alone.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from aiohttp import web

INDEX: Final = "index.html"
_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, and sent again when it has changed: a new gateway has a new page.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page."""

    body: bytes
    media_type: str
    etag: str


class PageFiles:
    """The page's files, in memory."""

    def __init__(self) -> None:
        self.files = {
            entry.name: _read_file(entry.name, entry.read_bytes())
            for entry in (resources.files("r1plus_gateway") / "page").iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }

    def build_routes(self) -> list[web.RouteDef]:
        """Return the routes: `/`, and each file that it loads under `/page/`."""
        loaded = (name for name in sorted(self.files) if name != INDEX)
        return [web.get("/", self._get), *(web.get(f"/page/{name}", self._get) for name in loaded)]

    async def _get(self, request: web.Request) -> web.Response:
        file = self.files[request.path.rpartition("/")[2] or INDEX]
        is_known = any(tag.value in (file.etag, "*") for tag in request.if_none_match or ())
        response = (
            web.Response(headers=_HEADERS, status=304)
            if is_known
            else web.Response(headers=_HEADERS, body=file.body, content_type=file.media_type, charset="utf-8")
        )
        response.etag = file.etag
        return response


def _read_file(name: str, body: bytes) -> PageFile:
    return PageFile(body, _TYPES[name.rpartition(".")[2]], hashlib.sha256(body).hexdigest()[:32])
