"""Half of a tenant's key: made into a Secret, exported for recovery, restored and rotated. Called by `tenant_app`.

The gateway's volume has the other half; neither opens the tenant's data alone. The export is written before the Secret,
so no half is ever in use that only the cluster has.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from r1plus_cli.errors import CliError, UsageError
from r1plus_contract.gateway import GATEWAY_KEY
from r1plus_gateway.store.keys.tenant_keys import HALF_PREFIX, MOST_HALVES, make_half

EXPORT_KIND: Final = "R1PlusTenantKeyExport"
_HALF: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(rf"{HALF_PREFIX}([1-9][0-9]{{0,8}})")


@dataclass(frozen=True, slots=True)
class SecretData:
    """A Secret's values, and the version that was read."""

    values: Mapping[str, bytes] = field(repr=False)
    version: str


class SecretCluster(Protocol):
    """The part of `kubernetes_cluster.KubernetesCluster` that has Secrets."""

    def get_namespace_uid(self, namespace: str) -> str:
        """Return the uid of a namespace."""

    def read_secret(self, namespace: str, name: str) -> SecretData | None:
        """Return a Secret; None if it does not exist."""

    def write_secret(self, namespace: str, name: str, values: Mapping[str, bytes], version: str | None) -> None:
        """Create a Secret (`version` None), or replace the one that was read at this version."""


@dataclass(frozen=True, slots=True)
class RecoveryExport:
    """What is kept offline: the halves of one tenant's Secret, as 64 hexadecimal digits by name."""

    namespace: str
    tenant_uid: str
    halves: Mapping[str, str] = field(repr=False)


def create_half(cluster: SecretCluster, namespace: str, export: Path) -> None:
    """Make the Secret with a new half, and its export. Raises CliError if the Secret exists."""
    if cluster.read_secret(namespace, GATEWAY_KEY) is not None:
        raise CliError(
            f"Secret {namespace}/{GATEWAY_KEY} exists, and a new half would not open the tenant's data; nothing was"
            f" changed. To rotate it: r1plus tenant rotate-key -n {namespace} --export FILE"
        )
    halves = {f"{HALF_PREFIX}1": make_half()}
    write_export(export, RecoveryExport(namespace, cluster.get_namespace_uid(namespace), halves))
    cluster.write_secret(namespace, GATEWAY_KEY, _encode(halves), None)


def restore_halves(
    cluster: SecretCluster, namespace: str, source: Path, confirm: Callable[[str], bool] = lambda _: False
) -> bool:
    """Make the Secret what the export says. Return whether the export is of another cluster.

    `confirm` is asked before the half of a namespace with another uid is taken: that of another cluster, or of one that
    was deleted. It opens backups of that tenant, and none of the data that are here.

    Raises:
        CliError: the export is another tenant's, or was not confirmed; or data here need the half that the Secret has.
    """
    export, uid = read_export(source), cluster.get_namespace_uid(namespace)
    existing, halves = cluster.read_secret(namespace, GATEWAY_KEY), _encode(export.halves)
    is_foreign = export.tenant_uid != uid
    if is_foreign:
        _require_same_tenant(source, export, namespace, uid, confirm)
        if existing is not None and dict(existing.values) != halves:
            raise CliError(
                f"Secret {namespace}/{GATEWAY_KEY} has another half than {source}, and data that are here may need it;"
                " nothing was changed. If nothing is here yet, delete the Secret and the gateway's volume first"
            )
    cluster.write_secret(namespace, GATEWAY_KEY, halves, existing.version if existing else None)
    return is_foreign


def _require_same_tenant(
    source: Path, export: RecoveryExport, namespace: str, uid: str, confirm: Callable[[str], bool]
) -> None:
    problem = (
        f"{source} is of tenant {export.namespace} with uid {export.tenant_uid},"
        f" and namespace {namespace} has uid {uid}"
    )
    if export.namespace != namespace:
        raise CliError(f"{problem}; nothing was changed. No half, and no backup, opens in another tenant")
    question = (
        f"{problem}: another cluster, or the namespace was deleted and made again. Its half opens backups of that"
        " tenant (r1plus tenant restore), and no data that are here. Is this the same tenant?"
    )
    if not confirm(question):
        raise CliError(
            f"{problem}; nothing was changed. Data of another tenant, or of a namespace that was deleted, do not open"
            " here. To restore a backup of the same tenant from another cluster, give --another-cluster"
        )


def begin_rotation(cluster: SecretCluster, namespace: str, export: Path) -> str:
    """Add a new half beside the one in use; return its name. Raises CliError while a rotation is unfinished."""
    secret, halves = _read_halves(cluster, namespace)
    if len(halves) >= MOST_HALVES:
        raise CliError(
            f"Secret {namespace}/{GATEWAY_KEY} has {len(halves)} halves already: a rotation is not finished."
            f" r1plus tenant rotate-key -n {namespace} --finish removes the older one"
        )
    name = f"{HALF_PREFIX}{max(map(_number, halves)) + 1}"
    halves = {**halves, name: make_half()}
    write_export(export, RecoveryExport(namespace, cluster.get_namespace_uid(namespace), halves))
    cluster.write_secret(namespace, GATEWAY_KEY, _encode(halves), secret.version)
    return name


def finish_rotation(cluster: SecretCluster, namespace: str) -> str:
    """Remove the older half; return its name. Raises CliError if there is only one."""
    secret, halves = _read_halves(cluster, namespace)
    if len(halves) < MOST_HALVES:
        raise CliError(
            f"Secret {namespace}/{GATEWAY_KEY} has one half: no rotation was begun."
            f" r1plus tenant rotate-key -n {namespace} --export FILE begins one"
        )
    old = min(halves, key=_number)
    cluster.write_secret(namespace, GATEWAY_KEY, _encode({n: h for n, h in halves.items() if n != old}), secret.version)
    return old


def write_export(path: Path, export: RecoveryExport) -> None:
    """Write a new file that only its owner reads. Raises UsageError if it exists or cannot be written."""
    document = {
        "kind": EXPORT_KIND,
        "namespace": export.namespace,
        "tenantUID": export.tenant_uid,
        "halves": dict(export.halves),
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageError(f"--export: {path} exists; name a new file, so that no older export is lost") from error
    except OSError as error:
        raise UsageError(f"--export: {path}: {error.strerror}") from error


def read_export(path: Path) -> RecoveryExport:
    """Read what `write_export` wrote. Raises UsageError, which has nothing of the content."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["kind"] != EXPORT_KIND:
            raise ValueError("another kind")
        export = RecoveryExport(document["namespace"], document["tenantUID"], dict(document["halves"]))
        _check_halves(export.halves)
    except OSError as error:
        raise UsageError(f"--from: {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"--from: {path} is not a recovery export of r1plus tenant init") from error
    return export


def _read_halves(cluster: SecretCluster, namespace: str) -> tuple[SecretData, dict[str, str]]:
    secret = cluster.read_secret(namespace, GATEWAY_KEY)
    if secret is None:
        raise CliError(
            f"Secret {namespace}/{GATEWAY_KEY} does not exist. r1plus tenant init -n {namespace} makes it for a new"
            " tenant; with --from FILE it restores that of an older one"
        )
    try:
        halves = {name: value.decode("ascii").strip() for name, value in secret.values.items()}
        _check_halves(halves)
    except ValueError as error:
        raise CliError(
            f"Secret {namespace}/{GATEWAY_KEY} is damaged: it has other values than one or two halves of 64 hexadecimal"
            f" digits. Restore it: r1plus tenant init -n {namespace} --from FILE"
        ) from error
    return secret, halves


def _check_halves(halves: Mapping[str, str]) -> None:
    if not 1 <= len(halves) <= MOST_HALVES:
        raise ValueError("one or two halves")
    for name, half in halves.items():
        if not _NAME.fullmatch(name) or not isinstance(half, str) or not _HALF.fullmatch(half):
            raise ValueError("not a half")


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else 0


def _encode(halves: Mapping[str, str]) -> dict[str, bytes]:
    return {name: half.encode() for name, half in halves.items()}
