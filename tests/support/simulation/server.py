"""A Kubernetes API server in memory: the verbs, for one loop and one thread. `store` keeps, `admission` refuses.

World actors call the verbs, which take effect at once; operators come through a `SimulatedTransport`. The contract test
compares what clients see of both this and the real server (tests/apiserver/test_api_contract.py).
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from r1plus_operator.api import kinds
from r1plus_operator.runtime import client
from r1plus_operator.runtime.client import MERGE_PATCH
from r1plus_operator.runtime.errors import ApiError, FieldCause, NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.simulation import admission, ownership, patches, refusals, schemas, subresources
from support.simulation.admission import Policy, Write
from support.simulation.completion import complete, find_faults, has_empty_list
from support.simulation.endpoints import select_applied, select_written
from support.simulation.metadata import (
    check_identity,
    check_version,
    format_time,
    is_new_generation,
    is_released,
    key_of,
    refuse_uid,
    select_finalizers,
    select_grace,
    with_kept_metadata,
    with_mark,
)
from support.simulation.ownership import Manager
from support.simulation.store import Record, Snapshot, Store
from support.simulation.traits import Traits, build_traits

Object = dict[str, Any]
HISTORY_SECONDS = 300.0
"""etcd is compacted every five minutes."""
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
WORLD = "system:admin"


@dataclass(frozen=True, slots=True)
class Change:
    """A committed write. `verb`: created, updated or deleted; the objects are the stored ones: do not change them."""

    verb: str
    resource: Resource
    before: Object | None
    after: Object | None
    user: str
    field_manager: str
    version: int
    at: float

    @property
    def obj(self) -> Object:
        """The object as it is now, or as it was last."""
        obj = self.after or self.before
        assert obj is not None
        return obj


@dataclass(frozen=True, slots=True)
class Actor:
    """Who writes."""

    user: str = WORLD
    field_manager: str = ""


class SimulatedApiServer:
    """One cluster's. Objects that it returns are the stored ones: copy before changing."""

    def __init__(self, rand: random.Random, read_time: Callable[[], float]) -> None:
        """`read_time`: seconds since the epoch."""
        self._rand = rand
        self._read_time = read_time
        self._traits = dict(build_traits())
        self._absent: set[Resource] = set()
        self._subscribers: list[Callable[[Change], None]] = []
        self.policies: list[Policy] = []
        """Asked about every write; the first that refuses counts."""
        self.store = Store(self._traits, HISTORY_SECONDS)
        self._last_applied: dict[tuple[str, Manager], tuple[int, bytes]] = {}
        """By object and manager: what was applied last, and the version that the object had then."""
        self.on_restart: list[Callable[[], None]] = []
        """Called back when the server restarts."""

    @property
    def version(self) -> int:
        """The newest resourceVersion."""
        return self.store.version

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._read_time()

    def serve(self, resource: Resource, *, is_served: bool = True) -> None:
        """Add an optional kind (its CRD is installed), or take it away with its objects."""
        if is_served:
            self._absent.discard(resource)
            return
        for record in self.store.list_records(resource):
            self._remove(self._traits[resource], record, Actor())
        self._absent.add(resource)

    def find_traits(self, resource: Resource) -> Traits:
        """Return a kind's traits; raise NotFoundError if it is not served."""
        traits = self._traits.get(resource)
        if traits is None or resource in self._absent:
            raise NotFoundError(404, "Unknown", "404 page not found")
        return traits

    def list_resources(self) -> list[Resource]:
        """Return all kinds that are served."""
        return [resource for resource in self._traits if resource not in self._absent]

    def read(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """Return an object, or None."""
        record = self.store.get(resource, (namespace or "", name))
        return record.obj if record else None

    def list_objects(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        """Return a kind's objects, of a namespace or of all."""
        return [record.obj for record in self.store.list_records(resource, namespace)]

    def subscribe(self, callback: Callable[[Change], None]) -> None:
        """Call back after each committed write, before the verb returns."""
        self._subscribers.append(callback)

    def save(self) -> Snapshot:
        """Return all that is stored now."""
        return self.store.save()

    def restore(self, snapshot: Snapshot) -> None:
        """Put etcd back: all objects, and the counter of versions, which are given out a second time."""
        self.store.restore(snapshot)
        self._last_applied.clear()
        self.restart()

    def restart(self) -> None:
        """Restart the server, not etcd: streams break, and history is forgotten."""
        self.store.compact()
        for callback in tuple(self.on_restart):
            callback()

    def create(
        self, resource: Resource, obj: Object, *, user: str = WORLD, field_manager: str = "", subresource: str = ""
    ) -> Object:
        """Create an object; with a subresource (`eviction`, `token`) act on the one of that name."""
        traits, actor = self.find_traits(resource), Actor(user, field_manager)
        if subresource:
            self._require(resource, obj["metadata"].get("namespace"), obj["metadata"]["name"])
            return subresources.create(self, resource, obj, subresource, user)
        made = self._prepare_new(traits, _copy(obj))
        if made["metadata"].get("resourceVersion"):
            raise ApiError(500, "Unknown", "resourceVersion should not be set on objects to be created")
        if self.store.get(resource, key_of(made)) is not None:
            raise refusals.exists(resource, made["metadata"]["name"])
        manager = Manager(field_manager or "unknown", "Update")
        owners = ownership.record_update(None, made, {}, manager, traits.shape)
        return self._store_new(traits, made, owners, actor)

    def replace(
        self, resource: Resource, obj: Object, *, user: str = WORLD, field_manager: str = "", subresource: str = ""
    ) -> Object:
        """Update an object as a whole (PUT)."""
        traits = self.find_traits(resource)
        record = self._require(resource, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        sent = _copy(obj)
        meta = sent["metadata"]
        if meta.get("uid") and meta["uid"] != record.obj["metadata"]["uid"]:
            raise refuse_uid(resource, meta["name"], meta["uid"], record.obj["metadata"]["uid"])
        if not meta.get("resourceVersion") and not traits.allows_unconditional_update:
            cause = FieldCause("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
            raise refusals.invalid(resource, meta["name"], [cause])
        return self._update(traits, record, sent, Actor(user, field_manager), subresource)

    def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        content_type: str = MERGE_PATCH,
        *,
        user: str = WORLD,
        field_manager: str = "",
        subresource: str = "",
    ) -> Object:
        """Change an object by a merge patch, or by a JSON patch."""
        traits = self.find_traits(resource)
        record = self._require(resource, namespace, name)
        match content_type:
            case client.MERGE_PATCH:
                patched = patches.merge(record.obj, _copy(body))
            case client.JSON_PATCH:
                patched = patches.apply_json_patch(record.obj, _copy(body))
            case other:
                raise ApiError(
                    415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {other}"
                )
        return self._update(traits, record, patched, Actor(user, field_manager), subresource)

    def apply(
        self,
        resource: Resource,
        obj: Object,
        *,
        field_manager: str,
        force: bool = True,
        user: str = WORLD,
        subresource: str = "",
    ) -> Object:
        """Apply an object (server-side): create it if absent, own its fields."""
        traits, actor = self.find_traits(resource), Actor(user, field_manager)
        text = orjson.dumps(obj)
        config = orjson.loads(text)
        meta = config["metadata"]
        record = self.store.get(resource, (meta.get("namespace") or "", meta["name"]))
        if traits.schema is not None and (unknown := schemas.find_unknown(_without_metadata(config), traits.schema)):
            why = f"failed to create typed patch object ({_describe(traits, meta)}): {unknown}: field not declared in schema"
            raise ApiError(500, "Unknown", why)
        manager = Manager(field_manager, "Apply", subresource)
        if record is None:
            return self._apply_new(traits, config, manager, actor)
        live = record.obj
        if self._last_applied.get((meta.get("uid") or live["metadata"]["uid"], manager)) == (record.version, text):
            return live  # The same again: it would change nothing.
        check_version(resource, meta, live["metadata"])
        if not subresource:
            check_identity(resource, meta, live["metadata"])
        config["metadata"] = {key: value for key, value in meta.items() if key not in ("resourceVersion", "uid")}
        config = select_applied(traits, config, subresource)
        owners = ownership.read_owners(live)
        result, owners = ownership.apply(live, config, owners, manager, traits.shape, force=force)
        is_noticed = traits.notices_empty_lists and has_empty_list(config.get("spec"))
        stored = self._store_update(traits, record, result, owners, actor, subresource, is_noticed=is_noticed)
        if "resourceVersion" not in meta and not is_noticed and not self._is_first(traits, stored):
            self._last_applied[stored["metadata"]["uid"], manager] = int(stored["metadata"]["resourceVersion"]), text
        return stored

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        user: str = WORLD,
        uid: str | None = None,
        version: str | None = None,
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> Object:
        """Delete an object, or mark it where finalizers, a kubelet or a namespace's content must go first."""
        traits, actor = self.find_traits(resource), Actor(user)
        record = self._require(resource, namespace, name)
        meta = record.obj["metadata"]
        if uid and uid != meta["uid"]:
            raise refuse_uid(resource, name, uid, meta["uid"])
        if version and version != meta["resourceVersion"]:
            why = f"Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {meta['resourceVersion']}"
            raise refusals.conflict(resource, name, why)
        self._admit(Write("DELETE", resource, "", user, record.obj, None), name)
        grace = select_grace(record.obj, grace_seconds)
        finalizers = select_finalizers(meta.get("finalizers") or [], propagation)
        has_content = resource == kinds.NAMESPACE and record.obj["spec"].get("finalizers")
        if not finalizers and not grace and not has_content:
            self._remove(traits, record, actor)
            return record.obj
        marked = with_mark(traits, record.obj, grace, finalizers, self.now())
        return record.obj if marked == record.obj else self._commit(traits, marked, actor)

    def finalize_namespace(self, name: str, *, user: str = WORLD) -> None:
        """Let a namespace go that has no content any more."""
        record = self._require(kinds.NAMESPACE, None, name)
        emptied = {**record.obj, "metadata": dict(record.obj["metadata"]), "spec": {}}
        traits, actor = self.find_traits(kinds.NAMESPACE), Actor(user)
        self._commit(traits, emptied, actor)
        if not emptied["metadata"].get("finalizers"):
            self._remove(traits, self._require(kinds.NAMESPACE, None, name), actor)

    # What the verbs share.

    def _require(self, resource: Resource, namespace: str | None, name: str) -> Record:
        record = self.store.get(resource, (namespace or "", name))
        if record is None:
            raise refusals.not_found(resource, name)
        return record

    def _prepare_new(self, traits: Traits, obj: Object) -> Object:
        """Return a new object as the server completes it, checked."""
        meta = obj["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + "".join(self._rand.choices(_SUFFIX, k=5))
        meta["name"] = meta.get("name") or ""
        if traits.resource.is_namespaced and not meta.get("namespace"):
            raise refusals.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        admission.check_namespace(self.store, traits.resource, obj)
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generation", "selfLink"):
            meta.pop(name, None)
        meta["uid"] = str(uuid.UUID(int=self._rand.getrandbits(128), version=4))
        meta["creationTimestamp"] = format_time(self.now())
        if traits.counts_generations:
            meta["generation"] = 1
        if traits.has_status and traits.resource != kinds.NODE:
            obj.pop("status", None)
        obj = complete(traits, obj, None)
        faults = admission.check_name(traits, meta["name"]) + admission.check_metadata(obj)
        faults += find_faults(traits, obj, None)
        if faults:
            raise refusals.invalid(traits.resource, meta["name"], faults)
        return obj

    def _store_new(self, traits: Traits, obj: Object, owners: ownership.Owners, actor: Actor) -> Object:
        resource, meta = traits.resource, obj["metadata"]
        self._admit(Write("CREATE", resource, "", actor.user, None, obj), meta["name"])
        charged = admission.check_quota(self.store, resource, None, obj) if resource.is_namespaced else []
        meta["managedFields"] = ownership.write_owners(None, owners, resource.api_version, meta["creationTimestamp"])
        for quota, status in charged:
            self._commit(
                self._traits[admission.QUOTA],
                {**quota.obj, "metadata": dict(quota.obj["metadata"]), "status": status},
                Actor(),
            )
        return self._commit(traits, obj, actor)

    def _apply_new(self, traits: Traits, config: Object, manager: Manager, actor: Actor) -> Object:
        resource, meta = traits.resource, config["metadata"]
        if manager.subresource:
            raise refusals.not_found(resource, meta["name"])
        if meta.get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing object was found"
            raise refusals.conflict(resource, meta["name"], why)
        meta.pop("resourceVersion", None)
        if traits.has_status:
            config.pop("status", None)
        fields = ownership.collect_object_fields(config, traits.shape)
        made = self._prepare_new(traits, config)
        return self._store_new(traits, made, {manager: fields} if fields else {}, actor)

    def _update(self, traits: Traits, record: Record, sent: Object, actor: Actor, subresource: str) -> Object:
        """Store what an update or a patch makes of an object."""
        live, resource = record.obj, traits.resource
        meta = sent["metadata"]
        check_version(resource, meta, live["metadata"])
        check_identity(resource, meta, live["metadata"])
        written = select_written(traits, live, sent, subresource)
        result = complete(traits, with_kept_metadata(live, written), live)
        manager = Manager(actor.field_manager or "unknown", "Update", subresource)
        claimed = result
        if traits.schema is not None and subresource == "status":
            # Its metadata is not stored, and yet counts as written (measured, 1.34).
            claimed = complete(traits, {**result, "metadata": meta}, live)
        owners = ownership.record_update(live, claimed, ownership.read_owners(live), manager, traits.shape)
        is_noticed = traits.notices_empty_lists and has_empty_list(sent.get("spec"))
        return self._store_update(
            traits, record, result, owners, actor, subresource, is_complete=True, is_noticed=is_noticed
        )

    def _store_update(
        self,
        traits: Traits,
        record: Record,
        result: Object,
        owners: ownership.Owners,
        actor: Actor,
        subresource: str,
        *,
        is_complete: bool = False,
        is_noticed: bool = False,
    ) -> Object:
        """Store an object in place of another; a write that changes nothing stores nothing.

        `is_noticed`: what was sent is a change, though nothing of it is stored.
        """
        live, resource = record.obj, traits.resource
        if not is_complete:
            result = complete(traits, with_kept_metadata(live, result), live)
        if resource == kinds.NAMESPACE and subresource != "finalize":
            result["spec"] = live["spec"]
        name = live["metadata"]["name"]
        managed = ownership.write_owners(live, owners, resource.api_version, format_time(self.now()))
        result["metadata"]["managedFields"] = managed
        result["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        if result == live and not is_noticed and not (traits.is_stored_twice and record.is_first):
            return live
        self._check_update(traits, live, result)
        self._admit(Write("UPDATE", resource, subresource, actor.user, live, result), name)
        if resource.is_namespaced and resource in (kinds.POD, kinds.BY_KIND["PersistentVolumeClaim"]):
            admission.check_quota(self.store, resource, live, result)
        is_spec = traits.counts_generations and subresource != "status"
        if is_spec and (is_noticed or is_new_generation(resource, live, result)):
            result["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
        if is_released(resource, live, result):
            self._remove(traits, Record(result, record.version), actor)
            return result
        return self._commit(traits, result, actor)

    def _is_first(self, traits: Traits, stored: Object) -> bool:
        """Whether the next write of an object is stored in any case."""
        record = self.store.get(traits.resource, key_of(stored))
        return traits.is_stored_twice and record is not None and record.is_first

    def _check_update(self, traits: Traits, live: Object, result: Object) -> None:
        faults = admission.check_immutable(traits, live, result) + admission.check_metadata(result)
        faults += find_faults(traits, result, live)
        before = live["metadata"].get("finalizers") or []
        added = [one for one in result["metadata"].get("finalizers") or [] if one not in before]
        if added and "deletionTimestamp" in live["metadata"]:
            text = f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            faults.append(FieldCause("metadata.finalizers", text))
        if faults:
            raise refusals.invalid(traits.resource, live["metadata"]["name"], faults)

    def _commit(self, traits: Traits, obj: Object, actor: Actor) -> Object:
        before = self.store.get(traits.resource, key_of(obj))
        record = self.store.commit(traits.resource, key_of(obj), obj, self.now())
        assert record is not None
        verb = "created" if before is None else "updated"
        self._report(verb, traits.resource, before.obj if before else None, record.obj, actor)
        return record.obj

    def _remove(self, traits: Traits, record: Record, actor: Actor) -> None:
        self.store.commit(traits.resource, key_of(record.obj), None, self.now(), last=record.obj)
        self._report("deleted", traits.resource, record.obj, None, actor)

    def _report(self, verb: str, resource: Resource, before: Object | None, after: Object | None, actor: Actor) -> None:
        if not self._subscribers:
            return
        change = Change(verb, resource, before, after, actor.user, actor.field_manager, self.version, self.now())
        for callback in tuple(self._subscribers):
            callback(change)

    def _admit(self, write: Write, name: str) -> None:
        for policy in self.policies:
            if (why := policy(write)) is not None:
                raise refusals.forbidden(write.resource, name, why)


def _copy(obj: Any) -> Any:
    return orjson.loads(orjson.dumps(obj))


def _without_metadata(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key != "metadata"}


def _describe(traits: Traits, meta: Object) -> str:
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}; {traits.resource.api_version}, Kind={traits.resource.kind}"
