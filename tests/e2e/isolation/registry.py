"""The registry's API as tenants ask it, and where it keeps a deployment's history."""

import urllib.error
import urllib.request

from e2e import chart
from e2e.isolation.people import Answer
from e2e.isolation.stage import INTRUDER, MODEL, Side, World
from r1plus_contract.history import AUDIENCE, PORT


class Registry:
    """The registry's API, by a way that the walls let the node itself have: who asks is told by the token alone."""

    def __init__(self, world: World, token: str) -> None:
        service = (world.kube.get("services", chart.NAMESPACE, f"{chart.RELEASE}-registry") or {})["spec"]["clusterIP"]
        self._base = f"http://127.0.0.1:{world.target.cluster.forward(service, PORT)}"
        self._token = token

    @classmethod
    def of(cls, world: World, side: Side) -> "Registry":
        """As a tenant's account asks it that may do what its administrator may."""
        words = ("create", "token", INTRUDER, f"--namespace={side.namespace}", f"--audience={AUDIENCE}")
        return cls(world, world.kube.kubectl(*words).strip())

    def get(self, path: str) -> Answer:
        """Ask."""
        request = urllib.request.Request(f"{self._base}{path}", headers={"Authorization": f"Bearer {self._token}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(errors="replace"))


def history(side: Side) -> str:
    """Where a deployment's is."""
    return f"/v1/namespaces/{side.namespace}/deployments/{MODEL}"
