"""Verification of a bundle: who signed it, and that it is whole and holds nothing else.

The signature of the lock is verified first. Then every byte of the bundle must be named, directly or through a
manifest, by the lock or by a statement about one of its artifacts that the same key signed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from r1plus_cli.bundle.layout import Layout, name_blob, open_layout
from r1plus_cli.bundle.oci import INDEX_TYPE, MANIFEST_TYPE, REF_NAME, Descriptor, Manifest, parse_document
from r1plus_cli.bundle.release import LOCK_FORMAT, LOCK_NAME, LockFormat, ReleaseLock, Statement
from r1plus_cli.errors import CliError, UsageError
from r1plus_model_repo.engine_fetch.sigstore import BUNDLE_TYPE, read_bundle


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest of the layout."""

    descriptor: Descriptor
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Release:
    """A verified bundle."""

    layout: Layout
    lock: ReleaseLock
    lock_manifest: Descriptor
    manifests: dict[str, Stored]
    """Digest -> manifest or index, of all artifacts and referrers."""
    referrers: dict[str, tuple[Descriptor, ...]]
    """Digest of a subject -> manifests of the statements about it."""
    predicates: dict[str, tuple[str, ...]]
    """Digest of a subject -> predicate types of the statements about it."""


@contextmanager
def open_release(path: Path, keys: Sequence[str]) -> Iterator[Release]:
    """Open and verify a bundle with public keys (PEM). Raise CliError or UsageError with what is wrong."""
    with open_layout(path) as layout:
        yield _Verifier(layout, keys).verify()


class _Verifier:
    def __init__(self, layout: Layout, keys: Sequence[str]) -> None:
        self._layout, self._keys = layout, keys
        self._manifests: dict[str, Stored] = {}
        self._verified: set[str] = set()
        """Digests of all blobs that something signed names."""

    def verify(self) -> Release:
        layout = self._layout
        layout.read_file("oci-layout")
        index = parse_document(Manifest, layout.read_file("index.json"), f"{layout.path}: index.json")
        names = self._read_names(index)
        referrers = self._read_referrers(index)
        lock_manifest = names.get(LOCK_NAME)
        if lock_manifest is None:
            raise UsageError(f"{layout.path}: index.json has no {LOCK_NAME}, so this is not a release bundle")
        predicates = {lock_manifest.digest: self._verify_statements(lock_manifest, referrers)}
        lock = self._read_lock(lock_manifest)
        self._compare_names(lock, names)
        for artifact in lock.artifacts:
            self._verify_tree(names[artifact.name])
            predicates[artifact.digest] = self._verify_statements(names[artifact.name], referrers)
        self._compare_files(lock)
        self._refuse_unlisted(referrers, predicates)
        statements = {subject: tuple(found) for subject, found in referrers.items()}
        return Release(layout, lock, lock_manifest, self._manifests, statements, predicates)

    def _refuse(self, reason: str) -> UsageError:
        return UsageError(f"{self._layout.path}: {reason}")

    def _read_names(self, index: Manifest) -> dict[str, Descriptor]:
        """Return name -> entry of the index; the tag after the colon is the lock's to say."""
        names: dict[str, Descriptor] = {}
        for entry in index.manifests:
            if (reference := entry.annotations.get(REF_NAME)) is not None:
                name = reference.partition(":")[0]
                if name in names:
                    raise self._refuse(f"index.json: {name!r:.80} is there twice")
                names[name] = entry
        return names

    def _read_referrers(self, index: Manifest) -> dict[str, list[Descriptor]]:
        """Return digest of a subject -> manifests of the statements about it."""
        referrers: dict[str, list[Descriptor]] = defaultdict(list)
        for entry in index.manifests:
            if REF_NAME not in entry.annotations:
                manifest = self._read_manifest(entry).manifest
                if manifest.subject is None:
                    raise self._refuse(f"index.json: {entry.digest} has no name and no subject")
                referrers[manifest.subject.digest].append(entry)
        return referrers

    def _verify_statements(self, subject: Descriptor, referrers: dict[str, list[Descriptor]]) -> tuple[str, ...]:
        """Check the signatures of all statements about an artifact, and return their predicate types."""
        name = subject.annotations.get(REF_NAME, subject.digest)
        statements = [self._verify_statement(subject, name, entry) for entry in referrers.get(subject.digest, ())]
        if not statements:
            raise CliError(f"{self._layout.path}: {name} has no signature; do not use this file")
        return tuple(sorted(statement.predicate_type for statement in statements))

    def _verify_statement(self, subject: Descriptor, name: str, entry: Descriptor) -> Statement:
        stored = self._read_manifest(entry)
        if stored.manifest.artifact_type != BUNDLE_TYPE or len(stored.manifest.layers) != 1:
            raise self._refuse(f"{entry.digest} is about {name}, and is not a Sigstore bundle")
        for blob in stored.manifest.blobs:
            self._verify_blob(blob)
        try:
            signed = read_bundle(self._layout.read_file(name_blob(stored.manifest.layers[0].digest)))
            is_signed = signed.is_signed_by(self._keys)
        except ValueError as error:
            raise self._refuse(f"signature of {name}: {error}") from error
        if not is_signed:
            raise CliError(
                f"{self._layout.path}: {name} is signed by another key than yours; do not use this file, or give the"
                " key of its publisher (--key)"
            )
        statement = parse_document(Statement, signed.payload, f"{self._layout.path}: statement about {name}")
        if [one.digest.get("sha256") for one in statement.subject] != [subject.digest.removeprefix("sha256:")]:
            raise CliError(f"{self._layout.path}: a signature beside {name} is about something else; do not use it")
        return statement

    def _read_lock(self, entry: Descriptor) -> ReleaseLock:
        self._verify_tree(entry)
        manifest = self._manifests[entry.digest].manifest
        if len(manifest.layers) != 1:
            raise self._refuse(f"{LOCK_NAME}: {len(manifest.layers)} layers, not 1")
        data, name = self._layout.read_file(name_blob(manifest.layers[0].digest)), f"{self._layout.path}: {LOCK_NAME}"
        if (found := parse_document(LockFormat, data, name).format) != LOCK_FORMAT:
            raise UsageError(
                f"{name}: its format is {found}, and this r1plus reads {LOCK_FORMAT}; install the r1plus of the"
                " bundle: tar -xf BUNDLE wheels, pipx install --force wheels/r1plus-*.whl"
            )
        return parse_document(ReleaseLock, data, name)

    def _compare_names(self, lock: ReleaseLock, names: dict[str, Descriptor]) -> None:
        listed = {artifact.name: artifact.digest for artifact in lock.artifacts}
        for name in sorted(listed.keys() | (names.keys() - {LOCK_NAME})):
            if name not in listed:
                raise UsageError(
                    f"{self._layout.path}: {name!r:.80} is not in the release's lock; do not use this file"
                )
            if name not in names or names[name].digest != listed[name]:
                raise self._refuse(f"{name} is not the one of the release's lock")

    def _verify_tree(self, entry: Descriptor) -> None:
        """Verify a manifest or index with all that it names."""
        stored = self._read_manifest(entry)
        for child in stored.manifest.manifests:
            self._verify_tree(child)
        for blob in stored.manifest.blobs:
            self._verify_blob(blob)

    def _read_manifest(self, entry: Descriptor) -> Stored:
        if entry.digest not in self._manifests:
            if entry.media_type not in (MANIFEST_TYPE, INDEX_TYPE):
                raise self._refuse(f"{entry.digest}: {entry.media_type!r:.80} is no OCI manifest")
            data = self._layout.read_document(entry)
            manifest = parse_document(Manifest, data, f"{self._layout.path}: {entry.digest}")
            self._manifests[entry.digest] = Stored(entry, manifest)
            self._verified.add(entry.digest)
        return self._manifests[entry.digest]

    def _verify_blob(self, blob: Descriptor) -> None:
        if blob.digest not in self._verified:
            self._layout.verify_blob(blob)
            self._verified.add(blob.digest)

    def _compare_files(self, lock: ReleaseLock) -> None:
        listed = {file.name: file for file in lock.files}
        if unlisted := self._layout.files.keys() - listed.keys():
            raise self._refuse(f"{min(unlisted)} is not in the release's lock; do not use this file")
        for name, file in listed.items():
            self._layout.verify_file(name, file.digest, file.size)

    def _refuse_unlisted(self, referrers: dict[str, list[Descriptor]], predicates: dict[str, tuple[str, ...]]) -> None:
        if foreign := referrers.keys() - predicates.keys():
            raise UsageError(
                f"{self._layout.path}: a statement about {min(foreign)}, which is no artifact of the release"
            )
        if unlisted := self._layout.blob_digests - self._verified:
            raise UsageError(
                f"{self._layout.path}: {min(unlisted)}: nothing signed names this blob; do not use this file"
            )
