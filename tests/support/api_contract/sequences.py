"""Random sequences of writes: what one server answers and stores, in words that do not depend on the server."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from r1plus_operator.runtime.client import JSON_PATCH
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.resources import Resource
from support.api_contract.cluster import CONFIG_MAP, DEPLOYMENT, FINALIZER, POLICY, R1P, SERVICE, Cluster, Object
from support.apiserver import manifests

MANAGERS = ("op", "human", "gitops")
_VOLATILE = ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")


class Sequence:
    """One seed's writes to a few objects of a namespace."""

    def __init__(self, seed: int, cluster: Cluster) -> None:
        self._rand = random.Random(seed)
        self._cluster = cluster
        self._versions: dict[str, list[str]] = {}

    async def run(self, steps: int) -> AsyncIterator[tuple[str, Any]]:
        """Make so many writes; yield what each was, and what came of it."""
        for _ in range(steps):
            resource = self._rand.choice((CONFIG_MAP, DEPLOYMENT, SERVICE, POLICY, R1P))
            write = self._rand.choice(
                (self._apply, self._apply, self._apply, self._patch, self._patch, self._remove_first, self._delete)
            )
            words, answer = await write(resource)
            yield f"{resource.kind}: {words}", answer

    async def _apply(self, resource: Resource) -> tuple[str, Any]:
        manager, force = self._rand.choice(MANAGERS), self._rand.random() < 0.7
        obj = self._draw(resource)
        request = self._cluster.client.apply(resource, obj, field_manager=manager, force=force)
        return f"{manager} applies {obj} {force=}", await self._answer(request, resource)

    async def _patch(self, resource: Resource) -> tuple[str, Any]:
        manager = self._rand.choice(MANAGERS)
        body = self._draw(resource)
        for name in ("apiVersion", "kind"):
            del body[name]
        body["metadata"] = {key: body["metadata"][key] for key in ("labels", "annotations") if key in body["metadata"]}
        # An empty map of labels is stored in a custom resource, though it is not shown.
        if resource != R1P and self._rand.random() < 0.3:
            body["metadata"]["labels"] = {self._rand.choice("ab"): None}
        if self._rand.random() < 0.15:
            body["metadata"]["finalizers"] = self._rand.choice(([FINALIZER], None))
        subresource = "status" if resource in (DEPLOYMENT, R1P) and self._rand.random() < 0.3 else ""
        if subresource:
            number = self._rand.randrange(3)
            body["status"] = {"reason": str(number)} if resource == R1P else {"observedGeneration": number}
        request = self._cluster.client.patch(
            resource, "x", self._cluster.namespace, body, field_manager=manager, subresource=subresource
        )
        return f"{manager} patches {subresource} {body}", await self._answer(request, resource)

    async def _remove_first(self, resource: Resource) -> tuple[str, Any]:
        """Remove an item of a list, or a field, by a JSON patch."""
        path = self._rand.choice(
            ("/metadata/labels/a", "/spec/ports/0", "/spec/template/spec/containers/1", "/data/x", "/spec/ingress/0")
        )
        patch = [{"op": "remove", "path": path}]
        request = self._cluster.client.patch(
            resource, "x", self._cluster.namespace, patch, content_type=JSON_PATCH, field_manager="human"
        )
        return f"human removes {path}", await self._answer(request, resource)

    async def _delete(self, resource: Resource) -> tuple[str, Any]:
        if self._rand.random() < 0.6:
            return "no deletion", None
        answer = await self._answer(self._cluster.client.delete(resource, "x", self._cluster.namespace), None)
        return "deletion", answer

    async def _answer(self, request: Any, resource: Resource | None) -> Any:
        """Return the error of a write, or the object that is stored then."""
        try:
            await request
        except ApiError as error:
            return type(error).__name__, error.reason, sorted({cause.field for cause in error.causes})
        if resource is None:
            return "done"
        stored: Object | None = None
        with suppress(ApiError):
            stored = await self._cluster.read(resource, "x")
        return stored and self._describe(stored)

    def _describe(self, obj: Object) -> Object:
        """Return an object without what differs between servers; its version as whether it is new."""
        versions = self._versions.setdefault(obj["metadata"]["uid"], [])
        version = obj["metadata"]["resourceVersion"]
        is_new = version not in versions
        versions.append(version)
        meta = {key: value for key, value in obj["metadata"].items() if key not in _VOLATILE}
        meta["is_new"], meta["is_marked"] = is_new, "deletionTimestamp" in obj["metadata"]
        meta["managedFields"] = {
            (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
            for entry in meta.get("managedFields", ())
        }
        spec = {key: value for key, value in (obj.get("spec") or {}).items() if key not in ("clusterIP", "clusterIPs")}
        return {**obj, "metadata": meta, "spec": spec}

    def _draw(self, resource: Resource) -> Object:
        rand, namespace = self._rand, self._cluster.namespace
        meta: Object = {"name": "x", "namespace": namespace}
        if rand.random() < 0.6:
            meta["labels"] = {key: str(rand.randrange(2)) for key in "ab" if rand.random() < 0.6}
        if resource == R1P and not meta.get("labels"):
            meta.pop("labels", None)
        if rand.random() < 0.3:
            meta["annotations"] = {"note": str(rand.randrange(2))}
        return {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": meta,
            **self._draw_body(resource),
        }

    def _draw_body(self, resource: Resource) -> Object:
        rand = self._rand
        if resource == CONFIG_MAP:
            return {"data": {key: str(rand.randrange(2)) for key in "xyz" if rand.random() < 0.6}}
        if resource == DEPLOYMENT:
            pods = {"matchLabels": {"app": "x"}}
            return {"spec": {"replicas": rand.randrange(3), "selector": pods, "template": self._draw_template()}}
        if resource == SERVICE:
            ports = [{"name": f"p{port}", "port": port, "targetPort": rand.choice((8000, 9000))} for port in (80, 81)]
            selector = {key: "1" for key in "ab" if rand.random() < 0.7}
            return {"spec": {"selector": selector, "ports": ports[: rand.choice((1, 2))]}}
        if resource == POLICY:
            rules = [{"from": [{"podSelector": {"matchLabels": {"app": key}}}]} for key in "xy" if rand.random() < 0.5]
            selected = {"matchLabels": {"app": rand.choice("xy")}}
            return {"spec": {"podSelector": selected, "policyTypes": ["Ingress"], "ingress": rules}}
        spec: Object = {"tier": rand.choice(("full", "lite", "huge"))}
        if rand.random() < 0.5:
            spec["replicas"] = rand.randrange(3)
        if rand.random() < 0.5:
            spec["accuracy"] = {"threshold": rand.choice((0.97, 0.99, 7))}
        return {"spec": spec}

    def _draw_template(self) -> Object:
        template = manifests.pod_template({"app": "x"})
        (base,) = template["spec"]["containers"]
        template["spec"]["containers"] = [
            {**base, "name": name, "env": self._draw_variables()} for name in ("c", "d")[: self._rand.choice((1, 2))]
        ]
        return template

    def _draw_variables(self) -> list[Object]:
        rand = self._rand
        return [{"name": name, "value": str(rand.randrange(2))} for name in "AB" if rand.random() < 0.5]
