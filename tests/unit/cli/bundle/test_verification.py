"""A bundle is accepted whole and signed by the given key, and in no other state."""

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from r1plus_cli.bundle.layout import name_blob
from r1plus_cli.bundle.oci import REF_NAME, describe
from r1plus_cli.bundle.release import LOCK_NAME, SIGNATURE_PREDICATE
from r1plus_cli.bundle.verification import open_release
from r1plus_cli.errors import CliError
from r1plus_model_repo.engine_fetch.sigstore import encode_public_key
from support.cli.release_bundle import FOREIGN_KEY, Bundle, read_members, write_members, write_release

Members = dict[str, bytes]


def refuse(path: Path, keys: list[str]) -> str:
    """Return the message of the refusal."""
    with pytest.raises(CliError) as refusal, open_release(path, keys):
        pass
    return str(refusal.value)


def test_a_whole_release_lists_artifacts_statements_and_files(bundle: Bundle) -> None:
    with open_release(bundle.path, bundle.keys) as release:
        assert [artifact.name for artifact in release.lock.artifacts] == ["r1plus-operator", "r1plus-chart"]
        assert set(release.predicates.values()) == {(SIGNATURE_PREDICATE,)}
        assert release.layout.blob_digests - release.manifests.keys()


def test_the_same_content_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert write_release(tmp_path / "one").path.read_bytes() == write_release(tmp_path / "other").path.read_bytes()


def test_any_of_several_keys_may_have_signed(bundle: Bundle) -> None:
    with open_release(bundle.path, [encode_public_key(FOREIGN_KEY.public_key()), *bundle.keys]):
        pass


def find_layer(members: Members) -> str:
    return next(name for name, data in members.items() if data == b"a layer")


def _change(members: Members, name: str, data: bytes) -> Members:
    return members | {name: data}


def _edit_index(members: Members, edit: Callable[[list[dict[str, object]]], None]) -> Members:
    index = json.loads(members["index.json"])
    edit(index["manifests"])
    return members | {"index.json": json.dumps(index).encode()}


def _drop_signatures(entries: list[dict[str, object]]) -> None:
    entries[:] = [entry for entry in entries if REF_NAME in (entry.get("annotations") or {})]


def _rename_lock(entries: list[dict[str, object]]) -> None:
    for entry in entries:
        if LOCK_NAME in str(entry):
            entry["annotations"] = {REF_NAME: "other:1"}


def _double_image(entries: list[dict[str, object]]) -> None:
    entries.append(entries[0])


def _exchange_image(entries: list[dict[str, object]]) -> None:
    entries[0]["digest"], entries[0]["size"] = entries[1]["digest"], entries[1]["size"]
    entries[0]["mediaType"] = entries[1]["mediaType"]


def _claim_other_type(entries: list[dict[str, object]]) -> None:
    entries[0]["mediaType"] = "text/html"


FOREIGN_BLOB = b"smuggled"
FOREIGN_NAME = name_blob(describe(FOREIGN_BLOB, "text/plain").digest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda m: _change(m, find_layer(m), b"b layer"), "another sha256", id="a layer of other content"),
        pytest.param(lambda m: _change(m, find_layer(m), b"a layer!"), "8 bytes, not 7", id="a longer layer"),
        pytest.param(lambda m: {k: v for k, v in m.items() if k != find_layer(m)}, "is missing", id="a missing layer"),
        pytest.param(lambda m: _change(m, FOREIGN_NAME, FOREIGN_BLOB), "nothing signed names", id="a blob more"),
        pytest.param(lambda m: _change(m, "wheels/evil.whl", b"x"), "not in the release's lock", id="a wheel more"),
        pytest.param(lambda m: _change(m, "wheels/r1plus-0.1.0-py3-none-any.whl", b"b wheel"), "another sha256",
                     id="a wheel of other content"),
        pytest.param(lambda m: {k: v for k, v in m.items() if k != "index.json"}, "not a release bundle", id="no index"),
        pytest.param(lambda m: {k: v for k, v in m.items() if k != "oci-layout"}, "not a release bundle",
                     id="no layout file"),
        pytest.param(lambda m: _change(m, "index.json", b"{"), "index.json", id="an index that is cut"),
        pytest.param(lambda m: _change(m, "index.json", b"[]"), "index.json", id="an index that is a list"),
        pytest.param(lambda m: _edit_index(m, _drop_signatures), "no signature", id="no signatures"),
        pytest.param(lambda m: _edit_index(m, _rename_lock), "has no r1plus-release", id="no lock"),
        pytest.param(lambda m: _edit_index(m, _double_image), "there twice", id="a name twice"),
        pytest.param(lambda m: _edit_index(m, _exchange_image), "not the one of the release's lock",
                     id="a name of another artifact"),
        pytest.param(lambda m: _edit_index(m, _claim_other_type), "is no OCI manifest", id="a type that is none"),
        pytest.param(lambda m: _change(m, "../../etc/cron.d/x", b"x"), "no bundle has such an entry", id="a path that leaves"),
        pytest.param(lambda m: _change(m, "/etc/passwd", b"x"), "no bundle has such an entry", id="an absolute path"),
        pytest.param(lambda m: _change(m, "wheels/../../x", b"x"), "no bundle has such an entry",
                     id="a path that leaves its folder"),
        pytest.param(lambda m: _change(m, "README", b"x"), "no bundle has such an entry", id="a file that no bundle has"),
        pytest.param(lambda m: _change(m, "index.json", b" " * (4 * 2**20 + 1)), "exceed 4194304", id="a vast index"),
    ],
)  # fmt: skip
def test_a_changed_bundle_is_refused_with_the_reason(
    bundle: Bundle, change: Callable[[Members], Members], reason: str
) -> None:
    write_members(bundle.path, list(change(read_members(bundle.path)).items()))
    message = refuse(bundle.path, bundle.keys)
    assert reason in message
    assert str(bundle.path) in message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_bundle_that_is_cut_is_refused(bundle: Bundle, share: float) -> None:
    with tarfile.open(bundle.path) as archive:
        last = archive.getmembers()[-1]
    bundle.path.write_bytes(bundle.path.read_bytes()[: int((last.offset_data + last.size) * share)])
    assert "fetch the bundle again" in refuse(bundle.path, bundle.keys)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_entry_that_is_no_file_is_refused(bundle: Bundle, kind: bytes) -> None:
    members = [*read_members(bundle.path).items(), (f"blobs/sha256/{'0' * 64}", b"")]
    write_members(bundle.path, members, kind)
    assert "no bundle has such an entry" in refuse(bundle.path, bundle.keys)


def test_an_entry_that_is_there_twice_is_refused(bundle: Bundle) -> None:
    members = list(read_members(bundle.path).items())
    write_members(bundle.path, [*members, members[0]])
    assert "is there twice" in refuse(bundle.path, bundle.keys)


def test_a_compressed_bundle_is_refused(bundle: Bundle) -> None:
    bundle.path.write_bytes(gzip.compress(bundle.path.read_bytes()))
    assert "not a whole, plain tar" in refuse(bundle.path, bundle.keys)


def test_another_key_is_refused_with_the_remedy(bundle: Bundle) -> None:
    message = refuse(bundle.path, [encode_public_key(FOREIGN_KEY.public_key())])
    assert "signed by another key" in message
    assert "--key" in message


def test_an_image_that_another_key_signed_is_refused(tmp_path: Path) -> None:
    bundle = write_release(tmp_path, image_key=FOREIGN_KEY)
    assert "r1plus-operator:0.1.0 is signed by another key" in refuse(bundle.path, bundle.keys)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(b'"format":1', b'"format":2,"later":1', "install the r1plus of the bundle", id="a newer format"),
        pytest.param(b'"format":1', b'"format":1,"other":1', "other", id="an unknown field"),
        pytest.param(b'"version":"0.1.0"', b'"version":"latest"', "version", id="a version that is none"),
        pytest.param(
            b'"repository":"r1plus-operator"', b'"repository":"../x"', "repository", id="a repository that leaves"
        ),
    ],
)
def test_a_signed_lock_that_cannot_be_read_is_refused(tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    bundle = write_release(tmp_path, edit_lock=lambda lock: lock.replace(old, new))
    assert reason in refuse(bundle.path, bundle.keys)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refuse(tmp_path / "none.tar", []) == f"{tmp_path / 'none.tar'}: No such file or directory"
