"""`r1plus tenant`: half of a tenant's key is made once, exported first, restored and rotated, and never shown."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.tenant.key_halves import (
    RecoveryExport,
    SecretData,
    begin_rotation,
    create_half,
    finish_rotation,
    read_export,
    restore_halves,
    write_export,
)
from r1plus_gateway.store.keys.tenant_keys import read_halves
from support.cli.command import run

TENANT = "team-credit"
UID = "0b5e6a2c-0000-4000-8000-00000000000a"


class Cluster:
    """Holds the tenant's Secret."""

    def __init__(self) -> None:
        self.uid = UID
        self.values: dict[str, bytes] | None = None
        self.version = 0
        self.refuses = False

    def get_namespace_uid(self, namespace: str) -> str:
        assert namespace == TENANT
        return self.uid

    def read_secret(self, namespace: str, name: str) -> SecretData | None:
        assert (namespace, name) == (TENANT, "r1plus-gateway-key")
        return None if self.values is None else SecretData(dict(self.values), str(self.version))

    def write_secret(self, namespace: str, name: str, values: Mapping[str, bytes], version: str | None) -> None:
        if self.refuses:
            raise CliError("Forbidden")
        assert version == (None if self.values is None else str(self.version))
        self.values, self.version = dict(values), self.version + 1

    @property
    def halves(self) -> dict[str, bytes]:
        assert self.values is not None
        return self.values


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_the_secret_is_what_the_gateway_reads_and_the_export_restores(cluster: Cluster, tmp_path: Path) -> None:
    export, mounted = tmp_path / "export.json", tmp_path / "mounted"
    create_half(cluster, TENANT, export)
    mounted.mkdir()
    for name, value in cluster.halves.items():
        (mounted / name).write_bytes(value)
    assert {name: half.hex().encode() for name, half in read_halves(mounted).items()} == cluster.halves
    assert stat.S_IMODE(export.stat().st_mode) == 0o600
    made, cluster.values = cluster.halves, None
    restore_halves(cluster, TENANT, export)
    assert cluster.halves == made


def test_a_half_that_exists_is_never_replaced_by_a_new_one(cluster: Cluster, tmp_path: Path) -> None:
    create_half(cluster, TENANT, tmp_path / "one")
    made = cluster.halves
    with pytest.raises(CliError, match=r"exists, and a new half would not open.*rotate-key"):
        create_half(cluster, TENANT, tmp_path / "two")
    assert cluster.halves == made
    assert not (tmp_path / "two").exists()


def test_the_export_is_written_before_the_secret(cluster: Cluster, tmp_path: Path) -> None:
    cluster.refuses = True
    with pytest.raises(CliError, match="Forbidden"):
        create_half(cluster, TENANT, tmp_path / "export")
    assert read_export(tmp_path / "export").tenant_uid == UID
    cluster.refuses = False
    with pytest.raises(UsageError, match="No such file or directory"):
        create_half(cluster, TENANT, tmp_path / "absent" / "export")
    assert cluster.values is None


def test_an_older_export_is_not_written_over(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("older")
    with pytest.raises(UsageError, match="exists; name a new file"):
        create_half(cluster, TENANT, tmp_path / "export")
    assert (tmp_path / "export").read_text() == "older"
    assert cluster.values is None


def test_the_half_is_rotated_in_two_steps(cluster: Cluster, tmp_path: Path) -> None:
    create_half(cluster, TENANT, tmp_path / "one")
    (first,) = cluster.halves.values()
    with pytest.raises(CliError, match="no rotation was begun"):
        finish_rotation(cluster, TENANT)
    assert begin_rotation(cluster, TENANT, tmp_path / "two") == "half-2"
    assert cluster.halves["half-1"] == first != cluster.halves["half-2"]
    assert {name: half.encode() for name, half in read_export(tmp_path / "two").halves.items()} == cluster.halves
    with pytest.raises(CliError, match="rotation is not finished"):
        begin_rotation(cluster, TENANT, tmp_path / "three")
    assert finish_rotation(cluster, TENANT) == "half-1"
    assert set(cluster.halves) == {"half-2"}
    assert begin_rotation(cluster, TENANT, tmp_path / "three") == "half-3"


def test_an_export_of_another_tenant_restores_nothing(cluster: Cluster, tmp_path: Path) -> None:
    create_half(cluster, TENANT, tmp_path / "export")
    made = cluster.halves
    cluster.uid = "made-again"
    with pytest.raises(CliError, match="is of tenant team-credit with uid 0b5e6a2c"):
        restore_halves(cluster, TENANT, tmp_path / "export")
    assert cluster.halves == made


def test_the_half_of_the_same_tenant_in_another_cluster_is_taken_if_that_is_confirmed(
    cluster: Cluster, tmp_path: Path
) -> None:
    create_half(cluster, TENANT, tmp_path / "export")
    made, cluster.values, cluster.uid = cluster.halves, None, "uid-of-another-cluster"
    questions: list[str] = []

    def confirm(question: str) -> bool:
        questions.append(question)
        return len(questions) > 1

    with pytest.raises(CliError, match=r"nothing was changed.*give --another-cluster"):
        restore_halves(cluster, TENANT, tmp_path / "export", confirm)
    assert cluster.values is None
    assert restore_halves(cluster, TENANT, tmp_path / "export", confirm)
    assert cluster.halves == made
    assert "namespace team-credit has uid uid-of-another-cluster: another cluster, or the namespace was" in questions[0]
    assert restore_halves(cluster, TENANT, tmp_path / "export", confirm), "again, and it is the same half"
    cluster.uid = UID
    assert not restore_halves(cluster, TENANT, tmp_path / "export")


def test_a_half_that_data_here_may_need_is_not_replaced_by_that_of_another_cluster(
    cluster: Cluster, tmp_path: Path
) -> None:
    create_half(cluster, TENANT, tmp_path / "export")
    cluster.values, cluster.uid = None, "uid-of-another-cluster"
    create_half(cluster, TENANT, tmp_path / "own")
    own = cluster.halves
    with pytest.raises(CliError, match=r"has another half than .*export, and data that are here may need it"):
        restore_halves(cluster, TENANT, tmp_path / "export", lambda _: True)
    assert cluster.halves == own


def test_a_half_of_another_namespace_is_never_taken(cluster: Cluster, tmp_path: Path) -> None:
    write_export(tmp_path / "export", RecoveryExport("team-risk", "another", {"half-1": "ab" * 32}))
    with pytest.raises(CliError, match=r"is of tenant team-risk.*No half, and no backup, opens in another tenant"):
        restore_halves(cluster, TENANT, tmp_path / "export", lambda _: True)
    assert cluster.values is None


def test_without_the_secret_nothing_is_rotated(cluster: Cluster, tmp_path: Path) -> None:
    for call in (lambda: begin_rotation(cluster, TENANT, tmp_path / "x"), lambda: finish_rotation(cluster, TENANT)):
        with pytest.raises(CliError, match=r"does not exist. r1plus tenant init -n team-credit"):
            call()


@pytest.mark.parametrize("values", [{}, {"half-1": b"xy"}, {"other": b"a" * 64}, {"half-1": b"\xff" * 64}])
def test_a_damaged_secret_is_named_without_its_content(
    cluster: Cluster, tmp_path: Path, values: dict[str, bytes]
) -> None:
    cluster.values = values
    with pytest.raises(CliError, match="is damaged") as failure:
        begin_rotation(cluster, TENANT, tmp_path / "x")
    assert "aaaa" not in str(failure.value)


EXPORTS = {
    "empty": "",
    "no JSON": "{",
    "another document": "{}",
    "of another kind": json.dumps({"kind": "Secret", "namespace": "a", "tenantUID": "b", "halves": {}}),
    "without halves": json.dumps({"kind": "R1PlusTenantKeyExport", "namespace": "a", "tenantUID": "b", "halves": {}}),
    "with a short half": json.dumps(
        {"kind": "R1PlusTenantKeyExport", "namespace": "a", "tenantUID": "b", "halves": {"half-1": "ab"}}
    ),
    "deep JSON": "[" * 100_000,
}


@pytest.mark.parametrize("text", EXPORTS.values(), ids=EXPORTS)
def test_what_is_no_export_restores_nothing(cluster: Cluster, tmp_path: Path, text: str) -> None:
    (tmp_path / "export").write_text(text)
    with pytest.raises(UsageError, match="is not a recovery export"):
        restore_halves(cluster, TENANT, tmp_path / "export")
    assert cluster.values is None


@pytest.mark.parametrize(
    "words",
    [("init",), ("init", "--export", "a", "--from", "b"), ("rotate-key",), ("rotate-key", "--export", "a", "--finish")],
)
def test_each_step_is_asked_for_alone(words: tuple[str, ...]) -> None:
    result = run("tenant", *words, "-n", TENANT)
    assert isinstance(result.exception, UsageError)
    assert "Give --export FILE" in str(result.exception)
