"""Pushes a verified bundle to a registry: blobs, then manifests, then statements, then tags.

A tag appears after everything that it needs, and the lock's last of all. So a push that is cut leaves no release that
looks whole, and the next one goes on where it ended.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from r1plus_cli.bundle.layout import name_blob
from r1plus_cli.bundle.oci import INDEX_TYPE, Descriptor, Manifest, parse_document
from r1plus_cli.bundle.push_target import PushTarget
from r1plus_cli.bundle.registry import OciRegistry
from r1plus_cli.bundle.release import LOCK_NAME, ReleaseLock
from r1plus_cli.bundle.verification import Release
from r1plus_cli.errors import CliError

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one artifact goes."""

    repository: str
    """Full name of the repository on the registry."""
    tag: str
    digest: str


@dataclass(frozen=True, slots=True)
class PushResult:
    """Bytes of blobs that were sent, and that the registry had already."""

    sent_bytes: int
    present_bytes: int


def list_destinations(lock: ReleaseLock, lock_digest: str, target: PushTarget) -> list[Destination]:
    """Return where each artifact goes, the lock last."""
    own = Destination(target.name_repository(LOCK_NAME), lock.version, lock_digest)
    return [*(Destination(target.name_repository(one.repository), one.tag, one.digest) for one in lock.artifacts), own]


def push_release(
    release: Release, registry: OciRegistry, target: PushTarget, *, may_move_tags: bool, report: Report
) -> PushResult:
    """Push all artifacts of a release with their statements.

    Raises:
        CliError: the registry refused, or a tag names other content and may not move.
    """
    destinations = list_destinations(release.lock, release.lock_manifest.digest, target)
    if not may_move_tags:
        _refuse_moved_tags(registry, destinations)
    push = _Push(release, registry, report)
    for destination in destinations:
        push.push_artifact(destination)
    for destination in destinations:
        push.push_tag(destination)
    return PushResult(push.sent_bytes, push.present_bytes)


def _refuse_moved_tags(registry: OciRegistry, destinations: list[Destination]) -> None:
    moved = [
        f"{one.repository}:{one.tag}"
        for one in destinations
        if registry.find_digest(one.repository, one.tag) not in (None, one.digest)
    ]
    if moved:
        raise CliError(
            f"{', '.join(moved)}: the registry has other content under this tag; push below another path (--to), or"
            " move the tags (--move-tags): installations that name a digest do not change"
        )


class _Push:
    def __init__(self, release: Release, registry: OciRegistry, report: Report) -> None:
        self._release, self._registry, self._report = release, registry, report
        self._repositories: dict[str, str] = {}
        """Digest of a blob -> repository of this registry that has it."""
        self.sent_bytes = self.present_bytes = 0

    def push_artifact(self, destination: Destination) -> None:
        """Push an artifact by digest, and the statements about it."""
        self._report(f"{destination.repository}:{destination.tag}")
        self._push_tree(destination.repository, destination.digest)
        for referrer in self._release.referrers.get(destination.digest, ()):
            is_listed = self._push_tree(destination.repository, referrer.digest)
            if not is_listed:
                self._list_by_tag(destination.repository, destination.digest, referrer)

    def push_tag(self, destination: Destination) -> None:
        """Name the artifact by its tag."""
        if self._registry.find_digest(destination.repository, destination.tag) != destination.digest:
            self._push_manifest(destination.repository, destination.tag, destination.digest)

    def _push_tree(self, repository: str, digest: str) -> bool:
        """Push a manifest or index after what it names. Return whether the registry lists it as a referrer."""
        stored = self._release.manifests[digest]
        for child in stored.manifest.manifests:
            self._push_tree(repository, child.digest)
        for blob in stored.manifest.blobs:
            self._push_blob(repository, blob)
        return self._push_manifest(repository, digest, digest)

    def _push_manifest(self, repository: str, reference: str, digest: str) -> bool:
        data = self._release.layout.read_file(name_blob(digest))
        media_type = self._release.manifests[digest].descriptor.media_type
        return self._registry.push_manifest(repository, reference, data, media_type)

    def _push_blob(self, repository: str, blob: Descriptor) -> None:
        if self._repositories.get(blob.digest) == repository:
            return
        if self._registry.has_blob(repository, blob.digest):
            self.present_bytes += blob.size
        else:
            source = self._repositories.get(blob.digest)
            layout, name = self._release.layout, name_blob(blob.digest)
            self._registry.push_blob(repository, blob, lambda: layout.iterate(name), source)
            self.sent_bytes += blob.size
        self._repositories[blob.digest] = repository

    def _list_by_tag(self, repository: str, subject: str, referrer: Descriptor) -> None:
        """List a referrer in the tag that stands in for the referrers API: sha256-HEX of its subject."""
        tag = subject.replace(":", "-", 1)
        present = self._registry.read_manifest(repository, tag)
        entries = parse_document(Manifest, present, f"{repository}:{tag}").manifests if present else ()
        if any(entry.digest == referrer.digest for entry in entries):
            return
        artifact_type = self._release.manifests[referrer.digest].manifest.artifact_type
        own = referrer.model_copy(update={"artifact_type": artifact_type, "annotations": {}})
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [entry.model_dump(by_alias=True, exclude_none=True) for entry in (*entries, own)],
        }
        self._registry.push_manifest(repository, tag, json.dumps(index).encode(), INDEX_TYPE)
