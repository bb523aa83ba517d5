"""Who asks the API server: people by client certificates, accounts by tokens. Nobody here is an administrator of the cluster."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from devcluster.pki import Authority, Certificate
from e2e.kube import Json

TIMEOUT_S = 300.0
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REFUSED = (401, 403)
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to the API server."""

    method: str
    path: str
    body: Json | None = None
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What it said."""

    status: int
    text: str

    @property
    def refused(self) -> bool:
        """By who asks, not by what is asked."""
        return self.status in REFUSED

    @property
    def done(self) -> bool:
        """As asked."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Json:
        """The document."""
        return dict(json.loads(self.text))

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.text[:300]}"


class Person:
    """Somebody with a client certificate."""

    def __init__(self, url: str, authority: Authority, certificate: Certificate) -> None:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(certificate.certificate, certificate.key)
        self._url = url
        no_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=context))

    def ask(self, one: Ask) -> Answer:
        """Send it."""
        body = None if one.body is None else json.dumps(one.body).encode()
        headers = {"Content-Type": one.kind, "Accept": "application/json", **one.headers}
        request = urllib.request.Request(f"{self._url}{one.path}", body, headers, method=one.method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status, answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(errors="replace"))

    def name(self) -> str:
        """Who they are, by the API server's own word."""
        body: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        return str(self.ask(Ask("POST", REVIEW, body)).json["status"]["userInfo"]["username"])
