"""A release as its users have it: pushed to a real registry, verified by cosign, installed by helm and pip.

`make test-long NAME=release`. The bundle is made of the work tree, signed by a key for trials.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from devcluster import binaries
from devcluster.cache import binary, cache_dir
from devcluster.parts import RELEASE_BINARIES
from devcluster.steps import Steps
from r1plus_cli.bundle.release import ArtifactKind, ReleaseLock
from r1plus_model_repo.engine_fetch.sigstore import encode_public_key
from release.__main__ import main
from release.registry_server import PASSWORD, USERNAME, RegistryServer, serve_registry
from support.waiting import wait_until

pytestmark = pytest.mark.release
R1PLUS = str(Path(sys.executable).with_name("r1plus"))
PATH_OF_BANK = "bank/r1plus"
COSIGN = ("--insecure-ignore-tlog", "--registry-username", USERNAME, "--registry-password", PASSWORD)


class Made:
    """A release in a folder."""

    def __init__(self, folder: Path) -> None:
        assert main(["--out", str(folder), "--dirty"]) == 0
        self.lock = ReleaseLock.model_validate_json((folder / "images.lock").read_text())
        self.bundle = folder / f"r1plus-{self.lock.version}.oci.tar"
        self.key = folder / "release.pub"


@pytest.fixture(scope="session")
def made() -> Made:
    binaries.build(Steps(len(RELEASE_BINARIES)), RELEASE_BINARIES)
    return Made(cache_dir() / "release")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def pushed(made: Made, registry: RegistryServer) -> str:
    """What `bundle push` printed."""
    result = push(made, registry)
    assert result.returncode == 0, result.stderr
    return result.stdout


def push_command(made: Made, registry: RegistryServer, path: str = PATH_OF_BANK) -> list[str]:
    command = [R1PLUS, "bundle", "push", str(made.bundle), "--key", str(made.key)]
    return [
        *command,
        "--to",
        f"{registry.host}/{path}",
        "--ca",
        str(registry.ca),
        "--username",
        USERNAME,
        "--password-stdin",
    ]


def push(made: Made, registry: RegistryServer, path: str = PATH_OF_BANK) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        push_command(made, registry, path), input=PASSWORD, capture_output=True, text=True, check=False
    )


def cosign(
    verb: str, reference: str, key: Path, registry: RegistryServer, *more: str
) -> "subprocess.CompletedProcess[str]":
    command = [
        str(binary("cosign")),
        verb,
        "--key",
        str(key),
        *COSIGN,
        "--registry-cacert",
        str(registry.ca),
        *more,
        reference,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_same_tree_and_key_make_the_same_bytes_again(made: Made, tmp_path: Path) -> None:
    shutil.copy(made.bundle.parent / "trial-signing-key.pem", tmp_path)
    again = Made(tmp_path)
    assert subprocess.run(["cmp", made.bundle, again.bundle], check=False).returncode == 0


def test_a_second_push_sends_nothing(made: Made, registry: RegistryServer, pushed: str) -> None:
    assert "pushed: 0 MiB sent" in push(made, registry).stderr


def test_a_push_that_was_killed_goes_on_where_it_was(made: Made, registry: RegistryServer, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    with progress.open("w") as log:
        process = subprocess.Popen(push_command(made, registry, "half"), stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert process.stdin is not None
        process.stdin.write(PASSWORD.encode())
        process.stdin.close()
        wait_until(
            lambda: progress.read_text().count("half/") > 1, "one artifact is there", evidence=progress.read_text
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = push(made, registry, "half")
    assert again.returncode == 0, again.stderr
    assert "MiB sent, 0 MiB were there" not in again.stderr


def test_a_registry_that_is_read_only_is_named_with_what_to_do(made: Made, tmp_path: Path) -> None:
    with serve_registry(tmp_path, is_read_only=True) as server:
        refused = push(made, server)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "405" in refused.stderr or "read-only" in refused.stderr


@pytest.mark.parametrize("kind", list(ArtifactKind))
def test_cosign_verifies_what_our_verifier_does(
    made: Made, registry: RegistryServer, pushed: str, kind: ArtifactKind
) -> None:
    for artifact in (one for one in made.lock.artifacts if one.kind is kind):
        reference = f"{registry.host}/{PATH_OF_BANK}/{artifact.repository}@{artifact.digest}"
        verified = cosign("verify", reference, made.key, registry)
        assert verified.returncode == 0, verified.stderr
        types = ["slsaprovenance1", *(["spdxjson"] if kind is ArtifactKind.IMAGE else [])]
        for name in types:
            attested = cosign("verify-attestation", reference, made.key, registry, "--type", name)
            assert attested.returncode == 0, attested.stderr


def test_cosign_refuses_a_foreign_key_as_our_verifier_does(
    made: Made, registry: RegistryServer, pushed: str, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.pub"
    foreign.write_text(encode_public_key(ec.generate_private_key(ec.SECP256R1()).public_key()))
    artifact = made.lock.artifacts[0]
    refused = cosign(
        "verify", f"{registry.host}/{PATH_OF_BANK}/{artifact.repository}:{artifact.tag}", foreign, registry
    )
    ours = [R1PLUS, "bundle", "verify", str(made.bundle), "--key", str(foreign)]
    assert refused.returncode != 0
    assert subprocess.run(ours, capture_output=True, check=False).returncode == 1


def test_the_printed_line_installs_the_releases_own_images(
    made: Made, registry: RegistryServer, pushed: str, tmp_path: Path
) -> None:
    words = pushed.split()
    chart, version = words[words.index("r1plus") + 1], words[words.index("--version") + 1]
    values = words[words.index("--set") + 1]
    helm = [str(binary("helm")), "--registry-config", str(tmp_path / "login.json")]
    login = [
        *helm,
        "registry",
        "login",
        registry.host,
        "--ca-file",
        str(registry.ca),
        "--username",
        USERNAME,
        "--password-stdin",
    ]
    subprocess.run(login, input=PASSWORD, capture_output=True, text=True, check=True)
    template = [
        *helm,
        "template",
        "r1plus",
        chart,
        "--version",
        version,
        "--ca-file",
        str(registry.ca),
        "--set",
        values,
    ]
    rendered = subprocess.run(
        [*template, "--kube-version", "1.34.0"], capture_output=True, text=True, check=True
    ).stdout
    prefix = f"{registry.host}/{PATH_OF_BANK}/"
    missing = [
        artifact.name
        for artifact in made.lock.artifacts
        if artifact.kind is ArtifactKind.IMAGE and f"{prefix}{artifact.repository}@{artifact.digest}" not in rendered
    ]
    assert missing == []
    assert "r1plus.local/" not in rendered
    assert list(yaml.safe_load_all(rendered))


def test_the_tool_is_installed_from_the_bundle_without_an_index(made: Made, tmp_path: Path) -> None:
    with tarfile.open(made.bundle) as archive:
        archive.extractall(tmp_path, [one for one in archive if one.name.startswith("wheels/")], filter="data")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [
        tmp_path / "venv/bin/pip",
        "install",
        "--quiet",
        "--no-index",
        "--find-links",
        tmp_path / "wheels",
        "r1plus[cli]",
    ]
    # Neither an index nor a proxy is there: what is missing in the bundle cannot come from elsewhere.
    env = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull}
    subprocess.run(install, check=True, env=env)
    verify = [tmp_path / "venv/bin/r1plus", "bundle", "verify", made.bundle, "--key", made.key]
    assert subprocess.run(verify, capture_output=True, check=False, env=env).returncode == 0


def test_figures_are_printed(made: Made) -> None:
    images = [one for one in made.lock.artifacts if one.kind is ArtifactKind.IMAGE]
    print(
        json.dumps({"bundle_bytes": made.bundle.stat().st_size, "images": len(images), "files": len(made.lock.files)})
    )
