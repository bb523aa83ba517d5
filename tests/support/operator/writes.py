"""An API server for the applier: it takes writes, or refuses them, and the caches that are updated."""

from collections.abc import Awaitable, Sequence

from r1plus_contract import names
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.observation import Json, NamespaceFacts
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.resources import Resource

CR: Json = {
    "metadata": {"name": "credit", "namespace": "t", "uid": "u", "resourceVersion": "7"},
    "spec": {},
    "status": {},
}


class Server:
    """Takes every write, or refuses those that a test names; answers with what was written.

    `live` is the uid of the R1PlusDeployment that it has; empty: it has none.
    """

    def __init__(self, *, live: str = "", **refusals: ApiError) -> None:
        self.log: list[str] = []
        self.learned: list[str] = []
        self.is_terminating = False
        self._live = live
        self._refusals = refusals

    async def list(self, res: Resource, namespace: str | None = None, *, name: str = "") -> tuple[list[Json], str]:
        assert name == "credit", "a namespace may have a thousand"
        return ([{"metadata": {"name": name, "uid": self._live}, "status": {}}] if self._live else []), "1"

    async def apply(
        self, res: Resource, obj: Json, *, field_manager: str, force: bool = True, subresource: str = ""
    ) -> Json:
        assert (field_manager, force) == (names.FIELD_MANAGER, True)
        name = obj["metadata"]["name"] if res.kind != "Event" else obj["reason"]
        return self._answer(f"{res.kind}{subresource and '/' + subresource}", name, obj)

    async def patch(
        self, res: Resource, name: str, namespace: str | None, body: Sequence[Json], *, content_type: str
    ) -> Json:
        assert (namespace, content_type) == ("t", "application/json-patch+json")
        return self._answer("patch " + res.kind, name, {"patched": body})

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "",
        grace_seconds: int | None = None,
    ) -> Json:
        assert namespace == "t"
        within = "" if grace_seconds is None else f" within {grace_seconds} s"
        return self._answer("delete " + res.kind, f"{name} {uid}{within}", {})

    async def write_through(self, child: Json, write: Awaitable[Json]) -> None:
        await write
        self.learned.append(f"{child['kind']} {child['metadata']['name']}")

    async def write_tenant(self, namespace: str, write: Awaitable[Json]) -> None:
        await write

    def find_namespace(self, name: str) -> NamespaceFacts:
        return NamespaceFacts(name, "n", is_tenant=True, pod_security="", is_terminating=self.is_terminating)

    def update_cached(self, written: Json) -> None:
        self.learned.append(f"status of {written['metadata']['uid']}: {written['status']}")

    def evict(self, kind: str, namespace: str, name: str) -> None:
        self.learned.append(f"{kind} {namespace}/{name} is gone")

    async def run(self, plan: Plan, **status: str) -> frozenset[str]:
        """Let the applier carry out a plan for the deployment with this status; returns what it returns."""
        return await Applier(self, self).apply_plan({**CR, "status": status}, plan, 0.0)

    def _answer(self, what: str, name: str, answer: Json) -> Json:
        self.log.append(f"{what} {name}")
        if (error := self._refusals.get(what.replace(" ", "_").replace("/", "_"))) is not None:
            raise error
        return answer
