"""Bundles: what is verified before anything of one is used, and what each refusal says."""

import base64
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.suites.suite_files import SuiteSignature
from r1plus_edge.bundle.archive import Bundle, open_bundle
from r1plus_edge.bundle.manifest import (
    MANIFEST_FILE,
    MAX_BYTES,
    MAX_MANIFEST_BYTES,
    BundleFile,
    BundleManifest,
    Host,
    Part,
    build_header,
    encode_manifest,
    read_host,
)
from r1plus_edge.bundle.signature import verify_signature
from r1plus_edge.bundle.writer import describe_file, list_folder, write_bundle
from r1plus_edge.errors import EdgeError
from r1plus_operator.observe.suite_signature import generate_key
from support.edge.bundles import (
    CONTENTS,
    HOST,
    MANIFEST,
    Member,
    build_manifest,
    build_members,
    build_signer,
    make_bundle,
    make_sources,
    write_tar,
)

SHA = "0" * 64


def open_here(path: Path, *trust: str) -> Bundle:
    return open_bundle(path, trust, HOST)


def test_a_sound_bundle_says_what_it_has_and_who_signed_it(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    bundle = open_here(path, generate_key().public, key.public)
    assert bundle.signer == key.public
    assert bundle.parts == set(Part)
    assert [file.path for file in bundle.manifest.files] == sorted(CONTENTS)


def test_parts_are_extracted_with_their_bytes_and_modes(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    bundle = open_here(path, key.public)
    for part in Part:
        bundle.extract(part, tmp_path / "out" / part.value)
    assert {
        name: file.read_bytes()
        for part in Part
        for name, file in list_folder(part.value, tmp_path / "out" / part).items()
    } == CONTENTS
    assert os.access(tmp_path / "out/triton/bin/tritonserver", os.X_OK)
    assert (tmp_path / "out/suite/suite.json").stat().st_mode & 0o777 == 0o644
    assert [one.name for one in (tmp_path / "out").iterdir() if one.name.startswith(".")] == []


def test_any_tar_reads_a_bundle(tmp_path: Path) -> None:
    path, _ = make_bundle(tmp_path)
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert names == ["manifest.json", "bundle.sig", *sorted(CONTENTS)]


def test_the_same_files_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    key = generate_key()
    paths = []
    for name, mask in (("one", 0o022), ("other", 0o077)):
        (tmp_path / name).mkdir()
        before = os.umask(mask)
        try:
            paths.append(make_bundle(tmp_path / name, key)[0])
        finally:
            os.umask(before)
        os.utime(tmp_path / name / "sources/suite/suite.json", (0, 0))
    assert paths[0].read_bytes() == paths[1].read_bytes()


Edit = Callable[[list[Member]], None]


def insert(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "") -> Edit:
    """Return what puts a member before the second file."""

    def edit(members: list[Member]) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname, member.mode = kind, len(content), link, 0o644
        members.insert(1, (member, content))

    return edit


def change_header(place: int, **fields: object) -> Edit:
    def edit(members: list[Member]) -> None:
        for name, value in fields.items():
            setattr(members[place][0], name, value)

    return edit


def change_content(place: int, content: bytes) -> Edit:
    def edit(members: list[Member]) -> None:
        members[place] = (members[place][0], content)

    return edit


def add_last(members: list[Member]) -> None:
    insert("wheels/z.whl", content=b"more")(members)
    members.append(members.pop(1))


def swap(members: list[Member]) -> None:
    members[0], members[1] = members[1], members[0]


ALTERED: dict[str, tuple[Edit, str]] = {
    "a byte of a file": (
        change_content(1, b"\1" + CONTENTS["engine/engine/openvino_model.bin"][1:]),
        "not those that were",
    ),
    "a file that is longer": (change_header(0, size=20), "its header"),
    "a program that was none": (change_header(2, mode=0o755), "its header"),
    "a program that starts with its owner's rights": (change_header(3, mode=0o4755), "its header"),
    "another owner": (change_header(0, uid=1000), "its header"),
    "a file that the manifest does not name": (
        insert("engine/more", content=b"x"),
        "'engine/more' is where the manifest",
    ),
    "a file after the last one": (add_last, "has 'wheels/z.whl', which the manifest does not name"),
    "a file that is not there": (lambda members: members.pop(1), "is where the manifest names engine/engine/"),
    "the last file is not there": (lambda members: members.pop(), "is named by the manifest, and is not there"),
    "another order": (swap, "is where the manifest names"),
    "a path out of the folder": (insert("../../etc/cron.d/x", content=b"x"), "'../../etc/cron.d/x' is where"),
    "an absolute path": (insert("/etc/cron.d/x", content=b"x"), "'/etc/cron.d/x' is where"),
    "a symbolic link": (insert("engine/l", tarfile.SYMTYPE, link="/etc"), "'engine/l' is a link"),
    "a hard link": (insert("engine/l", tarfile.LNKTYPE, link="suite/suite.json"), "'engine/l' is a link"),
    "a folder": (insert("engine/d", tarfile.DIRTYPE), "is a folder"),
    "a device": (insert("engine/d", tarfile.CHRTYPE), "is no plain file"),
    "a named pipe": (insert("engine/d", tarfile.FIFOTYPE), "is no plain file"),
    "an extended header": (change_header(0, mtime=0.5), "is no plain file"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_a_bundle_that_is_not_what_was_signed_is_refused(tmp_path: Path, case: str) -> None:
    edit, reason = ALTERED[case]
    key, manifest = generate_key(), build_manifest(tmp_path)
    members = build_members(manifest)
    control = write_tar(tmp_path / "control.tar", manifest, members, key)
    open_here(control, key.public)
    edit(members)
    with pytest.raises(EdgeError, match="copy the bundle again") as refused:
        open_here(write_tar(tmp_path / "altered.tar", manifest, members, key), key.public)
    assert reason in str(refused.value)


def file(path: str, size: int = 1, sha256: str = SHA) -> BundleFile:
    return BundleFile(path, size, sha256)


ONLY = replace(MANIFEST, python="", engine="", triton="")
BAD_MANIFESTS: dict[str, tuple[BundleManifest | bytes, str]] = {
    "no JSON": (b"{", "not JSON"),
    "no text": (b"\xff", "utf-8"),
    "an unknown field": (encode_manifest(ONLY).replace(b'"suite"', b'"hook"'), "hook"),
    "another format": (replace(ONLY, format=2, files=(file("suite/a"),)), "format: 2 is not 1"),
    "a path with ..": (replace(ONLY, files=(file("suite/../../x"),)), "does not stay below its folder"),
    "an absolute path": (replace(ONLY, files=(file("/suite/x"),)), "does not stay below its folder"),
    "an empty part of a path": (replace(ONLY, files=(file("suite//x"),)), "does not stay below its folder"),
    "a line break in a path": (replace(ONLY, files=(file("suite/a\nb"),)), "has a character"),
    "another folder": (replace(ONLY, files=(file("suite/a"), file("usr/bin/x"))), "is in none of the folders"),
    "a file beside the folders": (
        replace(ONLY, files=(file("install.sh"), file("suite/a"))),
        "is in none of the folders",
    ),
    "a long name": (replace(ONLY, files=(file("suite/" + "x" * 250),)), "longer than 255 bytes"),
    "a path twice": (replace(ONLY, files=(file("suite/a"), file("suite/a"))), "named twice"),
    "no order": (replace(ONLY, files=(file("suite/b"), file("suite/a"))), "not sorted"),
    "a file below a file": (replace(ONLY, files=(file("suite/a"), file("suite/a/b"))), "is below a file"),
    "a negative size": (replace(ONLY, files=(file("suite/a", -1),)), "size -1 is negative"),
    "too much together": (
        replace(ONLY, files=tuple(file(f"suite/{n:02}", MAX_BYTES // 2) for n in range(3))),
        "at most 68719476736 are allowed",
    ),
    "too many files": (replace(ONLY, files=tuple(file(f"suite/{n:04}") for n in range(8193))), "at most 8192"),
    "a digest that is none": (replace(ONLY, files=(file("suite/a", 1, "X" * 64),)), "hex digits"),
    "a part without its name": (replace(ONLY, files=(file("engine/a"), file("suite/a"))), "engine: ''"),
    "a name without its part": (replace(ONLY, engine="tiny", files=(file("suite/a"),)), "engine: 'tiny'"),
    "wheels for no Python": (replace(ONLY, files=(file("suite/a"), file("wheels/a"))), "python: ''"),
    "a name that is a path": (replace(ONLY, suite="../x", files=(file("suite/a"),)), "is no name"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_that_is_signed_and_unsound_is_refused(tmp_path: Path, case: str) -> None:
    manifest, reason = BAD_MANIFESTS[case]
    key = generate_key()
    path = write_tar(tmp_path / "bad.tar", manifest, [], key)
    with pytest.raises(EdgeError, match=r"manifest\.json: ") as refused:
        open_here(path, key.public)
    assert reason in str(refused.value)
    assert "make it again with `r1plus edge bundle`" in str(refused.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_half_a_bundle_is_refused(tmp_path: Path, share: float) -> None:
    path, key = make_bundle(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(EdgeError, match=r"copy the bundle again|name the file of a bundle"):
        open_here(path, key.public)


def test_a_bundle_cut_after_its_last_file_is_refused(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(EdgeError, match="ends too early: it is a part of a bundle"):
        open_here(path, key.public)


def test_another_signer_is_refused_by_the_names_of_both_keys(tmp_path: Path) -> None:
    path, _ = make_bundle(tmp_path)
    with pytest.raises(EdgeError, match=r"is signed by key [0-9a-f]{16}, and trusted is [0-9a-f]{16}; get a bundle"):
        open_here(path, generate_key().public)


SIGNATURES: dict[str, tuple[Callable[[SuiteSignature], SuiteSignature], str]] = {
    "of other bytes": (lambda one: replace(one, signature=base64.b64encode(bytes(64)).decode()), "does not fit"),
    "of another algorithm": (lambda one: replace(one, algorithm="none"), "is not Ed25519"),
    "that is too short": (lambda one: replace(one, signature="AA=="), "is not 64 bytes in base64"),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_a_signature_is_refused(tmp_path: Path, case: str) -> None:
    alter, reason = SIGNATURES[case]
    key, manifest = generate_key(), build_manifest(tmp_path)
    path = write_tar(tmp_path / "bad.tar", manifest, build_members(manifest), key, alter)
    with pytest.raises(EdgeError, match=reason):
        open_here(path, key.public)


def test_an_altered_manifest_is_refused_though_its_key_is_trusted(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"tiny"', b'"tino"', 1))
    with pytest.raises(EdgeError, match="the manifest was altered after it was signed"):
        open_here(path, key.public)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (Host("aarch64", "3.11"), "is for 'x86_64', and this machine is aarch64"),
        (Host("x86_64", "3.13"), r"its software is for Python '3.11', and this is 3.13"),
    ],
    ids=["another architecture", "another Python"],
)
def test_a_bundle_for_another_machine_is_refused(tmp_path: Path, host: Host, reason: str) -> None:
    path, key = make_bundle(tmp_path)
    with pytest.raises(EdgeError, match=reason):
        open_bundle(path, (key.public,), host)


def test_a_bundle_without_software_is_for_any_python(tmp_path: Path) -> None:
    key, sources = generate_key(), make_sources(tmp_path / "sources")
    only = {path: one for path, one in sources.items() if path.startswith("suite/")}
    write_bundle(tmp_path / "s.tar", only, ONLY, build_signer(key))
    assert open_bundle(tmp_path / "s.tar", (key.public,), Host("x86_64", "3.13")).parts == {Part.SUITE}


@pytest.mark.parametrize("trust", [(), ("",), ("AAAA",), ("not base64",)])
def test_keys_that_are_none_are_refused(tmp_path: Path, trust: tuple[str, ...]) -> None:
    path, _ = make_bundle(tmp_path)
    with pytest.raises(EdgeError, match=r"no signer is trusted|is not 32 bytes in base64"):
        open_here(path, *trust)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "No such file"),
    "a folder": (Path.mkdir, "is no regular file"),
    "a named pipe": (make_pipe, "is no regular file"),
    "an empty file": (Path.touch, "is no bundle"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), "is no bundle"),
    "text": (lambda path: path.write_text("r1plus\n" * 300), "is no bundle"),
    "another tar": (lambda path: path.write_bytes(build_header("engine/a", 0) + bytes(1024)), "is no bundle"),
    "a manifest of -1 bytes, which reads all of a file": (
        lambda path: path.write_bytes(build_header(MANIFEST_FILE, -1) + bytes(1024)),
        "is no plain file",
    ),
    "a manifest of -5 bytes": (
        lambda path: path.write_bytes(build_header(MANIFEST_FILE, -5) + bytes(1024)),
        "is no plain file",
    ),
    "a manifest of a gigabyte": (
        lambda path: path.write_bytes(build_header(MANIFEST_FILE, 2**30)),
        "is no plain file of",
    ),
    "a manifest just too large": (
        lambda path: path.write_bytes(build_header(MANIFEST_FILE, MAX_MANIFEST_BYTES + 1)),
        "is no plain file of",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path, case: str) -> None:
    make, reason = FILES[case]
    make(tmp_path / "file.tar")
    with pytest.raises(EdgeError, match=reason):
        open_here(tmp_path / "file.tar", generate_key().public)


def test_a_bundle_that_changes_after_it_was_verified_is_not_extracted(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    bundle = open_here(path, key.public)
    path.write_bytes(path.read_bytes().replace(b"PKPK", b"PKKP", 1))
    with pytest.raises(EdgeError, match="its bytes are not those that were signed"):
        bundle.extract(Part.WHEELS, tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()
    assert not (tmp_path / ".wheels.part").exists()


def test_an_extraction_overwrites_nothing(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    (tmp_path / "engine").mkdir()
    with pytest.raises(EdgeError, match="exists already"):
        open_here(path, key.public).extract(Part.ENGINE, tmp_path / "engine")


def test_a_remainder_of_a_killed_extraction_is_replaced(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    (tmp_path / ".suite.part").mkdir()
    (tmp_path / ".suite.part/suite.json").write_text("half")
    open_here(path, key.public).extract(Part.SUITE, tmp_path / "suite")
    assert (tmp_path / "suite/suite.json").read_bytes() == CONTENTS["suite/suite.json"]


def test_an_extraction_below_a_file_says_so(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    with pytest.raises(EdgeError, match="cannot be written"):
        open_here(path, key.public).extract(Part.SUITE, path / "suite")


def test_a_part_that_is_not_in_it_is_named(tmp_path: Path) -> None:
    key, sources = generate_key(), make_sources(tmp_path / "sources")
    only = {path: one for path, one in sources.items() if path.startswith("suite/")}
    write_bundle(tmp_path / "s.tar", only, ONLY, build_signer(key))
    with pytest.raises(EdgeError, match="it has no wheels"):
        open_here(tmp_path / "s.tar", key.public).extract(Part.WHEELS, tmp_path / "out")


def test_a_link_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(EdgeError, match="is no plain file"):
        describe_file("engine/link", tmp_path / "link")
    assert list_folder("engine", tmp_path) == {"engine/link": tmp_path / "link"}


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    key, sources = generate_key(), make_sources(tmp_path / "sources")
    with pytest.raises(EdgeError, match="engine: ''"):
        write_bundle(tmp_path / "s.tar", sources, ONLY, build_signer(key))
    with pytest.raises(EdgeError, match="cannot be written"):
        write_bundle(tmp_path / "none" / "s.tar", sources, MANIFEST, build_signer(key))
    assert [one.name for one in tmp_path.iterdir()] == ["sources"]


def test_libcrypto_and_cryptography_agree_on_signatures() -> None:
    key, other = generate_key(), generate_key()
    for size in (0, 1, 1000):
        message = os.urandom(size)
        signature = build_signer(key).sign(message)
        assert verify_signature(key.public, signature, message)
        assert not verify_signature(other.public, signature, message)
        assert not verify_signature(key.public, signature, message + b"\0")
        assert not verify_signature(key.public, build_signer(other).sign(message), message)


# RFC 8032, section 7.1, test 3.
RFC_KEY = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
RFC_SIGNATURE = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


def test_a_signature_of_the_rfc_is_verified() -> None:
    key, signature = (base64.b64encode(bytes.fromhex(text)).decode() for text in (RFC_KEY, RFC_SIGNATURE))
    assert verify_signature(key, signature, bytes.fromhex("af82"))
    assert not verify_signature(key, signature, bytes.fromhex("af83"))


def test_a_machine_without_openssl_verifies_nothing() -> None:
    key = generate_key()
    with pytest.raises(EdgeError, match="libssl3"):
        verify_signature(key.public, build_signer(key).sign(b""), b"", "libcrypto.so.0")


def test_this_machine_is_read() -> None:
    assert read_host() == Host(os.uname().machine, "3.11")
