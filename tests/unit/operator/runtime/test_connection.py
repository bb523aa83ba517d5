"""Where the API server is: kubeconfigs, service accounts, and what is wrong with them."""

import asyncio
import base64
import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvloop

from r1plus_operator.runtime import connection
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ConnectionConfigError, FileToken
from r1plus_operator.runtime.errors import TransportError
from support.rotating_tls import RotatingServer
from support.runtime.api_server import CONFIG_MAPS, LIMITS


def kubeconfig(
    folder: Path, *, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, current: str = "here"
) -> Path:
    config = {
        "contexts": [
            {"name": "other", "context": {"cluster": "far", "user": "u"}},
            {"name": "here", "context": {"cluster": "near", "user": "u", "namespace": "bank"}},
        ],
        "clusters": [
            {"name": "far", "cluster": {"server": "https://far"}},
            {"name": "near", "cluster": {"server": "https://near:6443/", **(cluster or {})}},
        ],
        "users": [{"name": "u", "user": user or {}}],
        "current-context": current,
    }
    path = folder / "config"
    path.write_text(json.dumps(config))
    return path


def test_the_current_context_decides(tmp_path: Path) -> None:
    found = connection.from_kubeconfig(kubeconfig(tmp_path, cluster={"tls-server-name": "kubernetes"}))
    assert (found.server, found.namespace, found.server_name) == ("https://near:6443", "bank", "kubernetes")
    assert found.tls.verify_mode is ssl.CERT_REQUIRED


def test_a_plain_http_server_has_no_tls(tmp_path: Path) -> None:
    assert connection.from_kubeconfig(kubeconfig(tmp_path, cluster={"server": "http://near"})).tls is None


def test_verification_ends_only_where_the_kubeconfig_says_so(tmp_path: Path) -> None:
    found = connection.from_kubeconfig(kubeconfig(tmp_path, cluster={"insecure-skip-tls-verify": True}))
    assert found.tls.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "as files beside the kubeconfig"])
def test_a_token_is_read(tmp_path: Path, inline: bool) -> None:
    (tmp_path / "token").write_text("secret\n")
    found = connection.from_kubeconfig(
        kubeconfig(tmp_path, user={"token": "secret"} if inline else {"tokenFile": "token"})
    )
    assert found.token() == "secret"


def test_an_authority_that_is_none_is_refused(tmp_path: Path) -> None:
    data = base64.b64encode(b"not a certificate").decode()
    with pytest.raises(ConnectionConfigError, match=r"config: cluster 'near', user 'u': .*certificate"):
        connection.from_kubeconfig(kubeconfig(tmp_path, cluster={"certificate-authority-data": data}))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        pytest.param({"user": {"exec": {}}}, "'u' logs in by exec; give a certificate or a token", id="an exec plugin"),
        pytest.param({"user": {"username": "x"}}, "logs in by username", id="a password"),
        pytest.param({"current": "gone"}, "contexts: no entry named 'gone'", id="a current context that is not there"),
        pytest.param({"cluster": {"certificate-authority": "no.pem"}}, r"no\.pem", id="an absent certificate"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path: Path, made: dict[str, Any], message: str) -> None:
    with pytest.raises(ConnectionConfigError, match=message):
        connection.from_kubeconfig(kubeconfig(tmp_path, **made))


@pytest.mark.parametrize("text", [None, "{unbalanced", "[1, 2]", ""], ids=["absent", "no YAML", "a list", "empty"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConnectionConfigError, match=str(path)):
        connection.from_kubeconfig(path)


def test_the_first_file_of_kubeconfig_that_exists_is_taken(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    found = connection.autodetect({"KUBECONFIG": f"{tmp_path / 'no'}{os.pathsep}{path}", "HOME": "/nowhere"})
    assert found.server == "https://near:6443"


def test_home_comes_last(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube")
    assert connection.autodetect({"HOME": str(tmp_path)}).namespace == "bank"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({}, "KUBERNETES_SERVICE_HOST: absent", id="no pod"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "automountServiceAccountToken", id="a pod without a token"
        ),
    ],
)
def test_a_pod_that_cannot_log_in_is_told_why(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConnectionConfigError, match=message):
        connection.in_cluster(environ, tmp_path)


def test_a_rotated_token_is_noticed(tmp_path: Path) -> None:
    """The kubelet swaps a link from one folder to another, so the file's inode changes and its age may not."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "data").symlink_to("old")
    token = FileToken(tmp_path / "data" / "token")
    assert (token(), token()) == ("old", "old")
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "data")
    assert token() == "new"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_rotated_ca_of_the_api_server_is_trusted_without_a_restart(tmp_path: Path, loop: Any) -> None:
    """A pod trusts what the kubelet's file holds now: neither the CA of its start, nor one that it held before."""
    (tmp_path / "token").write_text("secret")
    server = RotatingServer(tmp_path, {"kind": "ConfigMap"})

    async def ask() -> None:
        async with server.listen():
            environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
            async with ApiClient(connection.in_cluster(environ, tmp_path), limits=LIMITS) as client:
                await client.get(CONFIG_MAPS, "a", "ns")
                server.rotate()
                with pytest.raises(TransportError, match="certificate verify failed"):
                    await client.get(CONFIG_MAPS, "a", "ns")
                server.publish()
                await client.get(CONFIG_MAPS, "a", "ns")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ask())
