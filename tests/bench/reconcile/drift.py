"""Drift: every child deleted and every owned field edited by somebody who is not the operator.

What counts is what a watch shows: the time from the API server's answer to the edit until the event that holds every
owned field as it was before. What the intruder added beside (a label, an annotation) must be there at the end.
"""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.reconcile.fields import Edit, Path, edits, owned_fields, owned_values
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import JSON_PATCH, ApiClient
from r1plus_operator.runtime.errors import ApiError, NotFoundError
from r1plus_operator.runtime.resources import Resource

Json = dict[str, Any]
Key = tuple[str, str]
"""(kind, name)."""
INTRUDER = "intruder"
MARKS: Json = {"labels": {"intruder.example/team": "blue"}, "annotations": {"intruder.example/note": "keep me"}}
PATIENCE_SECONDS = 5.0


@dataclass(slots=True)
class Outcome:
    """What came of all the edits."""

    milliseconds: list[float] = field(default_factory=list)
    """Of each edit and deletion that was undone."""
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    """Edits that the API server refused in every form: immutable, or no valid value but the present one."""

    @property
    def tried(self) -> int:
        """Edits and deletions that took place."""
        return len(self.milliseconds) + len(self.failures)

    @property
    def restored(self) -> int:
        """Those that were undone."""
        return len(self.milliseconds)

    @property
    def median_ms(self) -> float:
        """Half were undone faster."""
        return statistics.median(self.milliseconds) if self.milliseconds else 0.0


class Sight:
    """Watches every kind of child in a namespace and keeps the newest state of each, with its time of arrival."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._newest: dict[Key, tuple[float, Json]] = {}
        self._news = asyncio.Condition()

    async def look(self, resource: Resource, deployments: Iterable[str]) -> str:
        """List what one kind has of these deployments; the version to watch from."""
        of_these = f"{names.LABEL_DEPLOYMENT} in ({','.join(deployments)})"
        objects, version = await self._client.list(resource, self._namespace, label_selector=of_these)
        for obj in objects:
            self._newest[resource.kind, obj["metadata"]["name"]] = (time.perf_counter(), obj)
        return version

    async def follow(self, resource: Resource, version: str) -> None:
        """Watch one kind until cancelled, without a selector: a label may be what is edited."""
        events = self._client.watch(resource, version, namespace=self._namespace, lifetime_s=3600.0)
        async with aclosing(events):
            async for event, obj in events:
                if event in ("ADDED", "MODIFIED"):
                    async with self._news:
                        self._newest[resource.kind, obj["metadata"]["name"]] = (time.perf_counter(), obj)
                        self._news.notify_all()

    def children(self, deployment: str) -> list[tuple[str, Json]]:
        """(kind, object) of every child of a deployment."""
        seen = ((kind, obj) for (kind, _), (_, obj) in self._newest.items())
        return [
            (k, o) for k, o in seen if (o["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == deployment
        ]

    def newest(self, key: Key) -> Json:
        """A child as last seen."""
        return self._newest[key][1]

    async def until(self, key: Key, holds: Callable[[Json], bool]) -> tuple[float, Json]:
        """When an object came to hold something, and that object; TimeoutError after PATIENCE_SECONDS."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            while not (key in self._newest and holds(self._newest[key][1])):
                await self._news.wait()
            return self._newest[key]


@asynccontextmanager
async def watching(client: ApiClient, namespace: str, deployments: Iterable[str]) -> AsyncIterator[Sight]:
    """A Sight of the children of these deployments."""
    sight = Sight(client, namespace)
    versions = [(resource, await sight.look(resource, deployments)) for resource in kinds.CHILDREN]
    watches = [asyncio.create_task(sight.follow(resource, version)) for resource, version in versions]
    try:
        yield sight
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


def without_record(fields: Json) -> Json:
    """The owned fields but for the annotations and data of a ControllerRevision that records its life in some of them.

    The record is read back, not derived: no pass can know what it was, and its hash is another as soon as it is. The
    data is immutable, and made again from the live objects, in which the API server has set defaults.
    """
    record = (names.ANNOTATION_CANDIDATE_SINCE, names.ANNOTATION_PROMOTED_AT, names.ANNOTATION_VERDICT)
    metadata = fields.get("f:metadata", {})
    if not any(f"f:{name}" in metadata.get("f:annotations", {}) for name in record):
        return fields
    kept = {key: below for key, below in metadata.items() if key != "f:annotations"}
    return {key: below for key, below in fields.items() if key != "f:data"} | {"f:metadata": kept}


@dataclass(frozen=True, slots=True)
class Share:
    """Of all edits of a child, every `of`-th from `number` on: deployments that are alike part the work."""

    number: int
    of: int


class Intruder:
    """Edits and deletes what one deployment owns, waits for each to be undone, and keeps count."""

    def __init__(self, client: ApiClient, namespace: str, sight: Sight, outcome: Outcome) -> None:
        self._client = client
        self._namespace = namespace
        self._sight = sight
        self._outcome = outcome

    async def assail(self, kind: str, obj: Json, share: Share) -> int:
        """Mark one child, edit its share of the owned fields, look for the mark, delete it; how many edits there are.

        Which they are is settled at the start: an edit that is not undone must not move the shares.
        """
        key = (kind, obj["metadata"]["name"])
        current = await self._patch(key, {"metadata": MARKS})
        fields = without_record(owned_fields(current, names.FIELD_MANAGER))
        if not fields:
            self._outcome.failures.append(f"{kind} {key[1]}: the operator owns nothing of it")
        every = list(edits(fields, current))
        for alternatives in every[share.number :: share.of]:
            current = await self._edit(key, alternatives, fields, current)
        for part, marks in MARKS.items():
            if not marks.items() <= (current["metadata"].get(part) or {}).items():
                self._outcome.failures.append(f"{kind} {key[1]}: the intruder's own {part} are gone")
        await self._delete(key, fields, current)
        return len(every)

    async def _edit(self, key: Key, alternatives: Iterable[Edit], fields: Json, current: Json) -> Json:
        """Make one edit; the object once it is undone, or as it was where the edit was refused or changed nothing."""
        made = await self._make(key, alternatives, current)
        if made is None:
            self._outcome.refused += 1
            return current
        edit, edited = made
        began, version = time.perf_counter(), _version(edited)
        before = dict(owned_values(fields, current))
        if same(dict(owned_values(fields, edited)), before):
            return edited
        restored = await self._undone(
            key,
            f"{edit}" if edit.op == "remove" else f"{edit} = {str(edit.value)[:80]!r}",
            began,
            before,
            lambda obj: (
                _version(obj) > version
                and same(dict(owned_values(fields, obj)), before)
                and substance(obj) == substance(current)
            ),
            fields,
        )
        return restored or await self._delete(key, fields, current)

    async def _make(self, key: Key, alternatives: Iterable[Edit], current: Json) -> tuple[Edit, Json] | None:
        """The first of the alternatives that the API server takes, and its answer."""
        for edit in alternatives:
            try:
                return edit, await self._patch(key, [edit.patch(current)], JSON_PATCH)
            except LookupError:
                continue
            except ApiError as error:
                if "immutable" in error.message:
                    return None  # Whatever the value.
        return None

    async def _delete(self, key: Key, fields: Json, current: Json) -> Json:
        """Delete the child; the one that takes its place, or what is left where none does."""
        before, uid = dict(owned_values(fields, current)), current["metadata"]["uid"]
        with contextlib.suppress(NotFoundError):  # It is gone where an earlier deletion was not undone.
            await self._client.delete(kinds.BY_KIND[key[0]], key[1], self._namespace)
        restored = await self._undone(
            key,
            "deleted",
            time.perf_counter(),
            before,
            lambda obj: obj["metadata"]["uid"] != uid and same(dict(owned_values(fields, obj)), before),
            fields,
        )
        return restored or current

    async def _undone(
        self,
        key: Key,
        what: str,
        began: float,
        before: Mapping[Path, Any],
        holds: Callable[[Json], bool],
        fields: Json,
    ) -> Json | None:
        """Wait for a state of the child; None where it does not come, and the failure says what stands instead."""
        try:
            seen, restored = await self._sight.until(key, holds)
        except TimeoutError:
            left = differences(dict(owned_values(fields, self._sight.newest(key))), before)
            self._outcome.failures.append(f"{key[0]} {key[1]}: {what}; {left}")
            return None
        self._outcome.milliseconds.append(max(0.0, seen - began) * 1e3)
        return restored

    async def _patch(self, key: Key, body: Any, content_type: str = "application/merge-patch+json") -> Json:
        resource = kinds.BY_KIND[key[0]]
        return await self._client.patch(
            resource, key[1], self._namespace, body, content_type=content_type, field_manager=INTRUDER
        )


async def raid(client: ApiClient, namespace: str, sight: Sight, group: list[str], outcome: Outcome) -> None:
    """Edit and delete all that these deployments own, one thing at a time of each.

    They are alike, so each edit is made on one of them; every child of every one is deleted. That they are not alike
    is a failure, since then some edit may have been nobody's.
    """

    async def alone(number: int, deployment: str) -> dict[tuple[str, str], int]:
        intruder, counts = Intruder(client, namespace, sight, outcome), {}
        # The record of a revision comes last: it is made again from live objects, which have the API server's defaults,
        # and so its Deployment gets another hash.
        for kind, obj in sorted(sight.children(deployment), key=lambda child: child[0] == "ControllerRevision"):
            role = kind, obj["metadata"]["name"].removeprefix(deployment)
            counts[role] = await intruder.assail(kind, obj, Share(number, len(group)))
        return counts

    found = await asyncio.gather(*(alone(number, name) for number, name in enumerate(group)))
    if any(counts != found[0] for counts in found):
        outcome.failures.append(f"{', '.join(group)} do not own the same, so not every edit was made: {found}")


def differences(now: Mapping[Path, Any], before: Mapping[Path, Any]) -> str:
    """The first few owned fields that read otherwise, for people."""
    changed = [path for path, value in before.items() if now[path] != value]
    shown = (f"{'/'.join(path)} is {str(now[path])[:80]}, was {str(before[path])[:80]}" for path in changed[:3])
    return "; ".join(shown) or "every owned field is as before, and something foreign stays or no event came"


def substance(obj: Json) -> str:
    """All that an object says but for metadata and status, so that nothing foreign is left; order tells nothing."""

    def unordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: unordered(below) for key, below in value.items()}
        if isinstance(value, list):
            return sorted((unordered(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
        return value

    said = {key: unordered(value) for key, value in obj.items() if key not in ("metadata", "status")}
    return json.dumps(said, sort_keys=True)


def same(now: Mapping[Path, Any], before: Mapping[Path, Any]) -> bool:
    """Whether every owned field reads as before."""
    return all(now[path] == value for path, value in before.items())


def _version(obj: Json) -> int:
    return int(obj["metadata"]["resourceVersion"])
