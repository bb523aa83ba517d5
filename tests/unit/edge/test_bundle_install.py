"""The installer beside a bundle, with Python's standard library alone; trusted keys; the bill of materials."""

import ast
import contextlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from r1plus_edge.bundle.archive import Bundle, open_bundle
from r1plus_edge.bundle.contents import gather_engine, gather_suite, install_contents, needs_catalog
from r1plus_edge.bundle.install import (
    COMPLETE,
    CURRENT,
    check_age,
    find_software_root,
    install_software,
    read_version,
    switch_current,
)
from r1plus_edge.bundle.installer import build_installer
from r1plus_edge.bundle.keys import add_key, find_keys_file, load_keys
from r1plus_edge.bundle.manifest import Part
from r1plus_edge.bundle.sbom import build_sbom
from r1plus_edge.bundle.software import (
    CERTIFICATES,
    find_project,
    find_uv,
    gather_wheels,
    list_platforms,
    read_wheel_version,
)
from r1plus_edge.bundle.writer import list_folder, write_bundle
from r1plus_edge.errors import EdgeError
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_operator.observe.suite_signature import generate_key
from support.edge.bundles import HOST, MANIFEST, build_signer, make_bundle, make_sources, write_release

ENGINES = load_catalog(Path(catalog.__file__).parent)
METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
License-Expression: Apache-2.0
{rest}
"""


def make_wheel(folder: Path, name: str, version: str = "1.0", rest: str = "") -> Path:
    """Write a wheel with an empty module and a command of its name."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    files = {
        f"{module}.py": "def main() -> None:\n    print('runs')\n",
        f"{info}/METADATA": METADATA.format(name=name, version=version, rest=rest),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{module} = {module}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("installer") / "install.pyz"
    path.write_bytes(build_installer())
    return path


def run_installer(installer: Path, home: Path, *words: str, umask: int = -1) -> "subprocess.CompletedProcess[str]":
    """Run it with the standard library alone: -I -S leave out what is installed."""
    home.mkdir(exist_ok=True)
    command, environment = [sys.executable, "-I", "-S", str(installer), *words], {"HOME": str(home)}
    environment |= {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, umask=umask)


def test_it_consists_of_the_standard_library_and_what_is_in_it(installer: Path) -> None:
    with zipfile.ZipFile(installer) as archive:
        modules = {name: ast.parse(archive.read(name)) for name in archive.namelist()}
    own = {name.removesuffix(".py").replace("/", ".") for name in modules}
    assert {"__main__", "r1plus_contract.names"} & own
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert (
                    node.module in own
                    or node.module.partition(".")[0] in sys.stdlib_module_names
                    or (node.module == "r1plus_contract")
                ), f"{name} imports {node.module}"
            if isinstance(node, ast.Import):
                assert all(one.name.partition(".")[0] in sys.stdlib_module_names for one in node.names), name


def test_it_is_the_same_each_time() -> None:
    assert build_installer() == build_installer()


REFUSALS = {
    "no key": ([], 1, "no signer is trusted"),
    "another key": (["--key", generate_key().public], 1, "is signed by key"),
    "no key at all": (["--key", "abc"], 1, "is not 32 bytes in base64"),
    "an unknown option": (["--force"], 2, "unrecognized arguments: --force"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_it_refuses_and_leaves_nothing(installer: Path, tmp_path: Path, case: str) -> None:
    words, status, reason = REFUSALS[case]
    path, _ = make_bundle(tmp_path)
    result = run_installer(installer, tmp_path / "home", str(path), *words)
    assert (result.returncode, reason in result.stderr) == (status, True), result.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_a_bundle_without_software_is_not_installed_by_it(installer: Path, tmp_path: Path) -> None:
    key, sources = generate_key(), make_sources(tmp_path / "sources")
    only = {path: one for path, one in sources.items() if path.startswith("suite/")}
    out = tmp_path / "suite.tar"
    write_bundle(out, only, replace(MANIFEST, python="", engine="", triton=""), build_signer(key))
    result = run_installer(installer, tmp_path / "home", str(out), "--key", key.public)
    assert (result.returncode, "it has no wheels" in result.stderr) == (1, True), result.stderr
    assert not find_keys_file({"HOME": str(tmp_path / "home")}).exists()


def make_software(tmp_path: Path, version: str = "1.0", name: str = "tiny-tool") -> tuple[Path, str]:
    """Return a bundle with one wheel of our own, and the key that signed it."""
    key, wheels = generate_key(), tmp_path / f"wheels-{version}"
    make_wheel(wheels, name, version)
    manifest = replace(MANIFEST, engine="", suite="", triton="")
    out = tmp_path / f"software-{version}.tar"
    write_bundle(out, list_folder(Part.WHEELS, wheels), manifest, build_signer(key))
    return out, key.public


@pytest.mark.unit_long
def test_software_is_installed_once_without_an_index_and_made_again_after_an_interruption(tmp_path: Path) -> None:
    path, key = make_software(tmp_path)
    bundle, root = open_bundle(path, (key,), HOST), tmp_path / "software"
    environment = install_software(bundle, root)
    run = subprocess.run([environment / "bin" / "tiny_tool"], capture_output=True, text=True, check=True)
    assert run.stdout == "runs\n"
    made = (environment / COMPLETE).stat().st_mtime_ns
    assert install_software(bundle, root) == environment
    assert (environment / COMPLETE).stat().st_mtime_ns == made
    (environment / COMPLETE).unlink()
    (environment / "bin" / "tiny_tool").unlink()
    install_software(bundle, root)
    assert (environment / "bin" / "tiny_tool").exists()
    assert sorted(one.name for one in root.iterdir()) == [".lock", environment.name]


@pytest.mark.unit_long
@pytest.mark.parametrize("umask", [0, 0o077], ids=["a umask that lets all write", "one that lets nobody read"])
def test_an_update_puts_software_into_a_slot_and_its_own_release_goes_on(tmp_path: Path, umask: int) -> None:
    path, key = make_software(tmp_path, name="r1plus")
    command = [Path(sys.prefix) / "bin" / "r1plus", "serve", "update", path, "--key", key, "--data", tmp_path / "data"]
    environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "home")}
    update = subprocess.run(command, capture_output=True, text=True, env=environ, umask=umask)
    assert (update.returncode, update.stdout) == (0, "runs\n"), update.stderr
    root = tmp_path / "home" / "r1plus" / "software"
    (marker,) = root.glob(f"*/{COMPLETE}")
    assert not (root / CURRENT).exists()
    made = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert [one for one in made if not one.is_symlink() and one.stat().st_mode & 0o022] == []
    needed = [marker.parent, *marker.parent.rglob("*.py")]
    assert [one for one in needed if not one.stat().st_mode & 0o004] == [], "a service's user may read root's"


def test_modules_in_the_current_folder_are_not_run(tmp_path: Path) -> None:
    path, key = make_software(tmp_path)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "called with $*"; exit 1\n')
    python.chmod(0o755)
    with pytest.raises(EdgeError, match="called with -I -m venv"):  # -I keeps the current folder off the path.
        install_software(open_bundle(path, (key,), HOST), tmp_path / "software", str(python))


@pytest.mark.unit_long
def test_what_is_installed_is_for_nobody_else_to_change(installer: Path, tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)  # Its wheels are none, so that it ends early.
    result = run_installer(installer, tmp_path / "home", str(path), "--key", key.public, umask=0)
    assert "the wheels of the bundle are for another machine" in result.stderr
    made = [tmp_path / "home" / ".local", *(tmp_path / "home" / ".local").rglob("*")]
    assert [one for one in made if not one.is_symlink() and one.stat().st_mode & 0o022] == []


def test_the_version_of_a_bundle_is_that_of_the_wheel_in_it(tmp_path: Path) -> None:
    for name, version in (("r1plus", "1.2.3"), ("other", "9.0")):
        make_wheel(tmp_path, name, version)
    assert read_wheel_version(tmp_path) == "1.2.3"


AGES = {
    "an earlier patch": ("1.2.9", "1.2.10", True),
    "an earlier release of fewer numbers": ("1.2", "1.2.1", True),
    "another build of the same release": ("1.2.0", "1.2", False),
    "another build by its local version": ("1.2.0+x", "1.2.0+y", False),
    "a candidate of the release that is installed": ("1.2.0rc1", "1.2.0", True),
    "an earlier candidate of the same release": ("1.2.0rc9", "1.2.0rc10", True),
    "a beta before a candidate": ("1.2.0b3", "1.2.0rc1", True),
    "the release after its candidate": ("1.2.0", "1.2.0rc1", False),
    "a development version of the release that is installed": ("1.2.0.dev9", "1.2.0a1", True),
    "a development version of a candidate": ("1.2.0rc1.dev1", "1.2.0rc1", True),
    "the release before what it was mended with": ("1.2.0", "1.2.0.post1", True),
    "a development version of what it was mended with": ("1.2.0.post1.dev1", "1.2.0", False),
    "an earlier epoch": ("9.0", "1!1.0", True),
    "a later release": ("1.10", "1.9.3", False),
    "a version that is none": ("unknown", "0.1.0", True),
}


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path, key = make_bundle(tmp_path_factory.mktemp("bundle"))
    return open_bundle(path, (key.public,), HOST)


@pytest.mark.parametrize(("own", "installed", "is_refused"), AGES.values(), ids=AGES)
def test_software_of_an_earlier_release_is_refused(
    small_bundle: Bundle, tmp_path: Path, own: str, installed: str, is_refused: bool
) -> None:
    bundle = replace(small_bundle, manifest=replace(MANIFEST, software=own, files=small_bundle.manifest.files))
    current = write_release(tmp_path / "software", installed)
    assert read_version(current) == installed
    words = f"has r1plus {own}, and {installed} is installed in {current}"
    with pytest.raises(EdgeError, match=words) if is_refused else contextlib.nullcontext():
        check_age(bundle, current)


def test_the_first_software_of_a_machine_and_a_bundle_without_any_have_no_age(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    bundle = open_bundle(path, (key.public,), HOST)
    check_age(bundle, tmp_path / "software" / CURRENT)
    files = tuple(file for file in bundle.manifest.files if not file.path.startswith("wheels/"))
    check_age(
        replace(bundle, manifest=replace(bundle.manifest, files=files)), write_release(tmp_path / "software", "9.0")
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        pytest.param([], "give --allow-older if you want this one", id="it is refused"),
        pytest.param(
            ["--allow-older"],
            "the wheels of the bundle are for another",
            id="it is asked for",
            marks=pytest.mark.unit_long,
        ),
    ],
)
def test_the_installer_takes_an_earlier_release_only_if_asked(
    installer: Path, tmp_path: Path, words: list[str], text: str
) -> None:
    path, key = make_bundle(tmp_path)  # Its wheels are none, so that it ends early.
    current = write_release(tmp_path / "home/.local/share/r1plus/software", "9.0")
    result = run_installer(installer, tmp_path / "home", str(path), "--key", key.public, *words)
    assert (result.returncode, text in result.stderr) == (1, True), result.stderr
    assert read_version(current) == "9.0"


def test_current_is_switched_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        assert switch_current(tmp_path, tmp_path / name) == tmp_path / CURRENT
        assert (tmp_path / CURRENT).resolve() == tmp_path / name


@pytest.mark.unit_long
def test_wheels_that_are_none_leave_no_environment_that_counts(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    bundle = open_bundle(path, (key.public,), HOST)
    with pytest.raises(EdgeError, match="the wheels of the bundle are for another machine, or the disk is full"):
        install_software(bundle, tmp_path / "software")
    assert sorted(path.name for path in (tmp_path / "software").iterdir()) == [".lock"]


def test_without_room_no_environment_is_begun(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    bundle = open_bundle(path, (key.public,), HOST)
    large = replace(bundle.manifest.files[-1], size=2**60)
    full = replace(bundle, manifest=replace(bundle.manifest, files=(large,)))
    with pytest.raises(EdgeError, match=r"MiB of disk are free, .* are needed; free some"):
        install_software(full, tmp_path / "software")
    assert sorted(path.name for path in (tmp_path / "software").iterdir()) == [".lock"]


def test_software_below_a_file_says_so(tmp_path: Path) -> None:
    path, key = make_software(tmp_path)
    with pytest.raises(EdgeError, match="name a folder in XDG_DATA_HOME"):
        install_software(open_bundle(path, (key,), HOST), path / "software")


def test_folders_are_those_of_xdg() -> None:
    assert find_software_root({"HOME": "/h"}) == Path("/h/.local/share/r1plus/software")
    assert find_software_root({"HOME": "/h", "XDG_DATA_HOME": "/opt"}) == Path("/opt/r1plus/software")
    assert find_keys_file({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}) == Path("/h/.config/r1plus/bundle-keys")


def test_keys_are_kept_once_and_beside_comments(tmp_path: Path) -> None:
    file = tmp_path / "r1plus" / "bundle-keys"
    one, other = generate_key().public, generate_key().public
    assert load_keys(file) == ()
    for key in (one, other, one):
        add_key(file, key)
    assert load_keys(file) == (one, other)
    file.write_text(f"# ours\n\n{one}  # Anna\n")
    assert load_keys(file) == (one,)
    assert file.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("text", ["no key\n", "AAAA\n", "ssh-ed25519 AAAAC3\n"])
def test_a_line_that_is_no_key_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bundle-keys"
    file.write_text(f"# ours\n{text}")
    with pytest.raises(EdgeError, match=r"line 2: .* is not 32 bytes in base64; remove the line"):
        load_keys(file)


def test_the_bill_of_materials_names_each_package_and_file_and_who_needs_whom(tmp_path: Path) -> None:
    sources = make_sources(tmp_path / "sources")
    wheels = {path for path in sources if path.startswith("wheels/")}
    sources = {path: one for path, one in sources.items() if path not in wheels}
    rest = "Provides-Extra: edge\nRequires-Dist: tiny-Tool>=1; extra == 'edge'\nRequires-Dist: absent\n"
    for wheel in (make_wheel(tmp_path / "w", "r1plus", "0.1.0", rest), make_wheel(tmp_path / "w", "tiny-tool")):
        sources[f"wheels/{wheel.name}"] = wheel
    document = json.loads(build_sbom(MANIFEST, sources))
    assert build_sbom(MANIFEST, sources) == build_sbom(MANIFEST, dict(reversed(sources.items())))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    by_name = {one["name"]: one for one in document["components"]}
    assert set(by_name) == {"r1plus", "tiny-tool", "tiny", "tiny-v1", "triton-1"}
    assert by_name["tiny-tool"]["purl"] == "pkg:pypi/tiny-tool@1.0"
    assert by_name["tiny-tool"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert len(by_name["tiny-tool"]["hashes"][0]["content"]) == 64
    assert by_name["tiny"]["type"] == "machine-learning-model"
    assert [one["name"] for one in by_name["tiny"]["components"]] == [
        "engine/engine.yaml",
        "engine/engine/openvino_model.bin",
    ]
    needs = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert needs["pkg:pypi/r1plus@0.1.0"] == ["pkg:pypi/tiny-tool@1.0"]
    assert set(needs["r1plus-bundle"]) == {one["bom-ref"] for one in document["components"]}


def test_a_file_that_is_no_wheel_is_none_of_the_bill(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="is no wheel with metadata"):
        build_sbom(MANIFEST, make_sources(tmp_path / "sources"))


def test_an_engine_goes_with_its_manifest_and_comes_back_as_the_same(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.bin").write_bytes(b"weights")
    engine = next(one for one in ENGINES if one.spec.reference.inherited_from is not None)
    with pytest.raises(EdgeError, match="its R1PlusEngine names"):
        gather_engine(engine, files, ENGINES, tmp_path)
    from r1plus_contract.engine.delivery import digest_folder

    artifact = engine.spec.artifact.model_copy(update={"sha256": digest_folder(files)})
    own = replace(engine, spec=engine.spec.model_copy(update={"artifact": artifact}))
    sources = gather_engine(own, files, ENGINES, tmp_path)
    sources |= gather_suite(Path(__file__).parents[3] / "monitoring" / "suites" / "smollm2-edge-v1")
    key, out = generate_key(), tmp_path / "engine.tar"
    manifest = replace(MANIFEST, python="", triton="", engine=own.name, suite="smollm2-edge-v1")
    write_bundle(out, sources, manifest, build_signer(key))
    contents = install_contents(open_bundle(out, (key.public,), HOST), tmp_path / "cache")
    assert contents.engine is not None
    assert contents.catalog is not None
    assert contents.suite is not None
    assert (contents.engine / "model.bin").read_bytes() == b"weights"
    assert own in load_catalog(contents.catalog)
    assert needs_catalog(contents.engine, ENGINES)
    assert not needs_catalog(contents.engine, (own,))
    assert contents.suite.name == "smollm2-edge-v1"
    assert install_contents(open_bundle(out, (key.public,), HOST), tmp_path / "cache") == contents


def test_a_bundle_is_not_unpacked_where_another_user_may_change_it(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    cache = tmp_path / "cache"
    (cache / "bundles").mkdir(parents=True)
    (cache / "bundles").chmod(0o777)
    with pytest.raises(EdgeError, match="another user may change what runs out of it"):
        install_contents(open_bundle(path, (key.public,), HOST), cache)


class CountingBundle:
    """A bundle with a suite, whose extraction waits a moment for a second one at the same time."""

    path, digest, parts = Path("suite.tar"), "0" * 64, frozenset({Part.SUITE})
    manifest = replace(MANIFEST, python="", engine="", triton="")

    def __init__(self) -> None:
        self.extractions: list[Path] = []
        self._both = threading.Barrier(2)

    def extract(self, part: Part, target: Path) -> None:
        self.extractions.append(target)
        with contextlib.suppress(threading.BrokenBarrierError):
            self._both.wait(1.0)
        target.mkdir(parents=True, exist_ok=True)


@pytest.mark.unit_slow
def test_two_at_once_extract_one_after_the_other(tmp_path: Path) -> None:
    bundle = CountingBundle()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(install_contents, cast(Bundle, bundle), tmp_path) for _ in range(2)]
    suites = {one.result().suite for one in both}
    assert bundle.extractions == list(suites)


def test_another_releases_triton_is_refused(tmp_path: Path) -> None:
    path, key = make_bundle(tmp_path)
    with pytest.raises(EdgeError, match=r"has triton-1, and r1plus 0\.1\.0 runs nvidia-pytriton-"):
        install_contents(open_bundle(path, (key.public,), HOST), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_a_clone_there_is_no_lock(tmp_path: Path) -> None:
    assert (find_project() / "uv.lock").is_file()
    with pytest.raises(EdgeError, match="installed without its lock"):
        find_project(tmp_path / "lib" / "r1plus_edge" / "bundle" / "software.py")


def test_wheels_are_for_debians_c_library_and_older_ones() -> None:
    platforms = list_platforms()
    assert (platforms[0], "manylinux_2_17_x86_64" in platforms) == ("manylinux_2_36_x86_64", True)
    assert "manylinux_2_37_x86_64" not in platforms
    assert os.confstr("CS_GNU_LIBC_VERSION") == "glibc 2.36"


def test_uv_is_found_where_the_quickstart_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EdgeError, match="`make quickstart` installs it for you"):
        find_uv(tmp_path / "cache")
    program = tmp_path / "cache" / "uv-0.0.1" / "bin" / "uv"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    assert find_uv(tmp_path / "cache") == str(program)


@pytest.mark.skipif(not CERTIFICATES.exists(), reason="this system keeps its authorities elsewhere")
def test_uv_trusts_the_systems_authorities_as_in_the_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv").write_text('#!/bin/sh\necho "certificates: $UV_SYSTEM_CERTS" >&2\nexit 1\n')
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV_SYSTEM_CERTS", raising=False)
    with pytest.raises(EdgeError, match="the lock cannot be had: certificates: 1"):
        gather_wheels(tmp_path, tmp_path / "cache", tmp_path / "wheels", print)
