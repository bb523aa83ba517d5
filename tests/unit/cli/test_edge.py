"""`r1plus edge` and the service of `r1plus serve`, as a person types them: what is refused, and what is printed."""

import sys
import tarfile
from pathlib import Path

import pytest

from r1plus_cli.errors import UsageError
from r1plus_edge.bundle.archive import open_bundle
from r1plus_operator.observe.suite_signature import generate_key
from support.cli.command import run
from support.edge.bundles import make_bundle
from support.edge.suites import write_part


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's."""
    for name, folder in {"R1PLUS_CACHE": "cache", "HOME": "home", "XDG_CONFIG_HOME": "config"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))


def write_key(folder: Path) -> tuple[Path, str]:
    key = generate_key()
    (folder / "key.pem").write_bytes(key.encode_pem())
    return folder / "key.pem", key.public


def test_a_suite_is_packed_with_its_bill_and_the_key_is_printed(tmp_path: Path) -> None:
    file, key = write_key(tmp_path)
    out = tmp_path / "suite.tar"
    result = run("edge", "bundle", out, "--suite", write_part(tmp_path / "part-v1"), "--key", file)
    assert result.exit_code == 0, result.output
    assert key in result.stdout.splitlines()
    assert "install.pyz" not in result.output
    assert not (tmp_path / "install.pyz").exists()
    bundle = open_bundle(out, (key,))
    assert (bundle.manifest.suite, bundle.manifest.python) == ("part-v1", "")
    with tarfile.open(out) as tar:
        assert tar.getnames() == [
            "manifest.json",
            "bundle.sig",
            "sbom.cdx.json",
            "suite/items.jsonl",
            "suite/suite.json",
        ]
    installed = run("edge", "install", out, "--key", key, "--no-start")
    assert installed.exit_code == 0, installed.output
    folder = tmp_path / "cache" / "bundles" / bundle.digest[:16] / "suites" / "part-v1"
    assert f"--suite {folder}" in installed.stdout
    nothing = run("edge", "install", out, "--key", key)
    assert isinstance(nothing.exception, UsageError)
    assert "has no engine, so there is nothing to serve" in str(nothing.exception)


WORDS = {
    "nothing": ([], "nothing to pack: give --software"),
    "a suite that nobody knows": (["--suite", "nonesuch"], "shipped are qwen-full-v1, qwen-lite-v1, smollm2-edge-v1"),
    "an engine that nobody knows": (["--engine", "nonesuch"], "no engine of this name, and no folder"),
}


@pytest.mark.parametrize("case", WORDS)
def test_a_bundle_is_refused_and_nothing_is_left(tmp_path: Path, case: str) -> None:
    words, reason = WORDS[case]
    file, _ = write_key(tmp_path)
    result = run("edge", "bundle", tmp_path / "out.tar", *words, "--key", file)
    assert isinstance(result.exception, UsageError), result.output
    assert reason in str(result.exception)
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_private_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.pem").write_text(text)
    result = run("edge", "bundle", tmp_path / "out.tar", "--suite", "smollm2-edge-v1", "--key", tmp_path / "key.pem")
    assert isinstance(result.exception, UsageError)
    assert "--key" in str(result.exception)


def test_an_installation_without_a_trusted_key_is_refused(tmp_path: Path) -> None:
    path, _ = make_bundle(tmp_path)
    result = run("edge", "install", path)
    assert "no signer is trusted" in str(result.exception)


def test_a_unit_is_printed_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1PLUS_CACHE", "/srv/r1plus/cache")
    result = run("serve", "install", "--print", "--data", "/srv/r1plus/data", "--", "--tier", "edge")
    hidden = next((one for one in ("/tmp", "/var/tmp") if Path(sys.prefix).is_relative_to(one)), "")
    if hidden:  # A clone there, which PrivateTmp hides.
        assert f"the service would see nothing below {hidden}" in str(result.exception)
    else:
        assert " serve --tier edge --data /srv/r1plus/data\n" in result.stdout
    assert not (tmp_path / "config").exists()


def test_a_service_of_nothing_is_refused() -> None:
    result = run("serve", "install")
    assert (result.exit_code, "say what to serve after `--`" in result.output) == (2, True)


def test_what_is_not_installed_cannot_be_uninstalled() -> None:
    result = run("serve", "uninstall")
    assert "there is no such unit; nothing is installed" in str(result.exception)
