"""A small read-only client of the cluster's API, for waiting: a kubectl process per question would cost too much."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from devcluster.pki import Authority, Certificate

TIMEOUT_S = 5.0


class Api:
    """Asks the API server at `url` as the holder of `client`."""

    def __init__(self, url: str, authority: Authority, client: Certificate) -> None:
        self._url = url
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(client.certificate, client.key)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def ready(self) -> bool:
        """Whether /readyz says ok; an error of any kind means not yet."""
        return self._text("/readyz") is not None

    def get(self, path: str) -> dict[str, Any] | None:
        """The object or list at `path`, or None while the server does not answer or does not have it."""
        text = self._text(path)
        return None if text is None else dict(json.loads(text))

    def items(self, path: str) -> list[dict[str, Any]]:
        """The items of the list at `path`; none while the server does not answer."""
        return list((self.get(path) or {}).get("items") or [])

    def _text(self, path: str) -> str | None:
        try:
            with self._opener.open(f"{self._url}{path}", timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError, http.client.HTTPException):
            return None


def condition(item: dict[str, Any], kind: str) -> bool:
    """Whether the object's condition `kind` is True."""
    return any(c["type"] == kind and c["status"] == "True" for c in item.get("status", {}).get("conditions") or [])


def pod_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is Ready."""
    return condition(pod, "Ready")
