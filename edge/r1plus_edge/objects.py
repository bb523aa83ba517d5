"""The objects of the plan, as an API server would keep them: one file, replaced in one step and synced.

So a power cut leaves what was before a pass or what is after it. The plan makes the rest again from what it finds.
"""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1plus_contract import names
from r1plus_contract.atomic_files import sync
from r1plus_contract.timestamps import format_timestamp
from r1plus_edge.errors import EdgeError
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import list_images

Key = tuple[str, str]
"""(kind, name)."""


@dataclass(slots=True)
class Objects:
    """The R1PlusDeployment and its children."""

    path: Path
    deployment: Json = field(default_factory=dict)
    """As the API server would have it, with its status."""
    children: dict[Key, Json] = field(default_factory=dict)
    version: int = 0
    """Of the newest write."""
    saved_version: int = 0
    """Of the newest write that the disk has."""

    def ask_for(self, name: str, namespace: str, spec: Json, now: float) -> None:
        """Let the R1PlusDeployment have this spec.

        Raises:
            EdgeError: the folder has another deployment.
        """
        meta = self.deployment.get("metadata") or {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "generation": 0,
            "creationTimestamp": format_timestamp(now),
        }
        if (meta["name"], meta["namespace"]) != (name, namespace):
            raise EdgeError(
                f"--data {self.path.parent}: it is of deployment {meta['namespace']}/{meta['name']}, not of"
                f" {namespace}/{name}; name another folder"
            )
        if self.deployment.get("spec") != spec:
            meta = {**meta, "generation": meta["generation"] + 1}
        self.deployment = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND_DEPLOYMENT,
            "metadata": meta,
            "spec": spec,
            "status": self.deployment.get("status", {}),
        }

    def drop_other_images(self, images: frozenset[str]) -> list[str]:
        """Forget revisions that other software ran: it is not here any more. Return their names."""
        dropped = [
            name
            for (kind, name), obj in self.children.items()
            if kind == "ControllerRevision" and not _runs_only(obj, images)
        ]
        for key in [key for key in self.children if key[1] in dropped]:
            del self.children[key]
        return dropped

    def runs_on(self, images: frozenset[str]) -> bool:
        """Whether a revision is of this software."""
        return any(_runs_only(obj, images) for obj in self.list_children("ControllerRevision"))

    def apply(self, plan: Plan) -> bool:
        """Carry out what a plan writes; return whether anything was written.

        Raises:
            OSError: the disk does not take it; the next call tries again.
        """
        before = self.version
        for obj in (obj for stage in plan.apply for obj in stage):
            self._write(obj)
        for kind, name, uid in plan.delete:
            if self.children.get((kind, name), {}).get("metadata", {}).get("uid") == uid:
                del self.children[(kind, name)]
                self.version += 1
        if self.deployment.get("status") != plan.status:
            self.deployment = {**self.deployment, "status": plan.status}
            self.version += 1
        if self.version != self.saved_version:
            self.save()
        return self.version != before

    def read_config(self, name: str) -> Mapping[str, str] | None:
        """Return the files of a ConfigMap; None: there is none."""
        obj = self.children.get(("ConfigMap", name))
        return None if obj is None else dict(obj["data"])

    def list_children(self, kind: str) -> Iterable[Json]:
        """Return the objects of a kind."""
        return [obj for (of, _), obj in self.children.items() if of == kind]

    def save(self) -> None:
        """Replace the file, and wait until the disk has it."""
        document = {"version": self.version, "deployment": self.deployment, "children": list(self.children.values())}
        write_synced(self.path, json.dumps(document, ensure_ascii=False))
        self.saved_version = self.version

    def _write(self, obj: Json) -> None:
        key = obj["kind"], obj["metadata"]["name"]
        self.version += 1
        old = self.children.get(key, {}).get("metadata", {})
        own = {"uid": old.get("uid") or str(uuid.uuid4()), "resourceVersion": str(self.version)}
        self.children[key] = {**obj, "metadata": {**obj["metadata"], **own}}


def _runs_only(revision: Json, images: frozenset[str]) -> bool:
    template: Any = revision["data"].get("template") or {}
    return set(list_images(template.get("spec") or {})) <= images


def load_objects(path: Path) -> Objects:
    """Read the file; none: nothing was ever made.

    Raises:
        EdgeError: it is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        children = {(obj["kind"], obj["metadata"]["name"]): obj for obj in document["children"]}
        version = int(document["version"])
        return Objects(path, document["deployment"], children, version, version)
    except FileNotFoundError:
        return Objects(path)
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(
            f"{path}: it is damaged ({type(error).__name__}); remove it, and the gate runs again"
        ) from error


def write_synced(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step that a power cut does not undo."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)
