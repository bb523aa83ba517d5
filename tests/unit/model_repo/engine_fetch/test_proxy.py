"""The Job's container behind a forward proxy, with a CA of one's own: real CONNECT, real TLS, real archives."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import CA_FILE, ORDER_FILE, PROXY_FILE, Archive, FillOrder
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.engine_fetch import __main__ as program
from r1plus_model_repo.engine_fetch import addresses
from support.model_repo.engine_fetch import builds
from support.model_repo.engine_fetch.proxy import Proxy, proxying
from support.model_repo.engine_fetch.server import Server, gives, serving, tar_of

FILES = {"engine/openvino_model.xml": b"<net/>", "engine/weights.bin": b"\1" * 100_000}
BODY = tar_of(FILES)


@dataclass
class Job:
    """What a Job is told, and how its container ends."""

    root: Path
    monkeypatch: pytest.MonkeyPatch

    def run(self, url: str, *, ca: str = "", proxy: str = "") -> tuple[int, str]:
        """Exit code and termination message."""
        order = FillOrder("bank-lite", self.digest, 200_000, Archive(url, hashlib.sha256(BODY).hexdigest()))
        orders, log = self.root / "order", self.root / "log"
        for folder in (orders, self.volume):
            folder.mkdir(exist_ok=True)
        files = {ORDER_FILE: dumps(order), CA_FILE: ca, PROXY_FILE: proxy}
        for name, text in files.items():
            (orders / name).unlink(missing_ok=True)
            if text:
                (orders / name).write_text(text)
        log.write_text("")
        folders = ["--order-dir", orders, "--volume", self.volume, "--termination-log", log, "--port", 0]
        self.monkeypatch.setattr("sys.argv", ["filling", *map(str, folders)])
        return program.main(), log.read_text()

    @property
    def volume(self) -> Path:
        return self.root / "volume"

    @property
    def digest(self) -> str:
        original = self.root / "original"
        return digest_folder((original if original.exists() else builds.write(original, FILES)) / "engine")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        found.answers["/e.tar"] = gives(BODY)
        yield found


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with proxying() as found:
        yield found


def test_an_engine_comes_through_a_proxy_from_a_server_of_ones_own_ca(job: Job, server: Server, proxy: Proxy) -> None:
    """Its name is resolved by the proxy alone: were it resolved in the pod, loopback would be refused."""
    server.answers["/moved"] = gives(b"", 302, Location="/e.tar")
    assert job.run(f"{server.url}/moved", ca=server.ca, proxy=f"{proxy.url}\n") == (0, "")
    assert digest_folder(job.volume / "engine") == job.digest
    assert server.asked == ["/moved", "/e.tar"]
    assert proxy.asked == [server.url.removeprefix("https://")] * 2, "a redirect goes the same way"


def test_without_the_ca_the_remedy_is_named(job: Job, server: Server, proxy: Proxy) -> None:
    job.monkeypatch.setattr(addresses, "_explain_refusal", lambda _: "")
    for way in (proxy.url, ""):
        code, said = job.run(f"{server.url}/e.tar", proxy=way)
        assert code == 1
        assert said.startswith(f"FetchFailed: {server.url}/e.tar: ")
        assert "CERTIFICATE_VERIFY_FAILED" in said
        assert "of the CA that issued it to the chart's delivery.ca" in said
        assert "cidrs" not in said
    assert server.asked == []


def test_what_a_proxy_alters_is_no_engine(job: Job, server: Server) -> None:
    """It opens TLS with a certificate that the Job trusts, and gives another archive."""
    with serving() as other:
        other.answers["/e.tar"] = gives(tar_of({**FILES, "engine/weights.bin": b"\2" * 100_000}))
        ports = [int(found.url.rpartition(":")[2]) for found in (server, other)]
        with proxying({ports[0]: ports[1]}) as proxy:
            code, said = job.run(f"{server.url}/e.tar", ca=server.ca, proxy=proxy.url)
        assert other.asked == ["/e.tar"]
    assert (code, said.partition(":")[0]) == (2, "EngineDigestMismatch")
    assert not (job.volume / "engine").exists()


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (403, "check that the proxy allows localhost:"),
        (502, "check that the proxy allows localhost:"),
        (407, "let the proxy accept the cluster's addresses without a password"),
    ],
)
def test_a_proxy_that_refuses_is_named_with_a_remedy(
    job: Job, server: Server, proxy: Proxy, status: int, remedy: str
) -> None:
    proxy.status = status
    code, said = job.run(f"{server.url}/e.tar", ca=server.ca, proxy=proxy.url)
    assert code == 1
    assert f"no connection through the proxy {proxy.url} (Tunnel connection failed: {status}" in said
    assert remedy in said


def test_a_proxy_that_is_not_there_is_named_with_its_policies(job: Job, server: Server) -> None:
    with proxying() as gone:
        pass
    code, said = job.run(f"{server.url}/e.tar", ca=server.ca, proxy=gone.url)
    assert (code, f"the proxy {gone.url}" in said, "delivery.proxy.cidrs" in said) == (1, True, True)


def test_a_server_that_is_no_proxy_is_named(job: Job, server: Server) -> None:
    code, said = job.run(f"{server.url}/e.tar", ca=server.ca, proxy=server.url.replace("https", "http"))
    assert (code, "no connection through the proxy" in said) == (1, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "2852039166", "[::1]"])
def test_no_address_of_a_metadata_service_is_asked_for_through_a_proxy(
    job: Job, server: Server, proxy: Proxy, host: str
) -> None:
    server.answers["/moved"] = gives(b"", 302, Location=f"https://{host}/latest")
    code, said = job.run(f"{server.url}/moved", ca=server.ca, proxy=proxy.url)
    assert (code, said.partition(":")[0]) == (2, "FetchRefused")
    assert proxy.asked == [server.url.removeprefix("https://")]


def test_a_name_that_only_the_proxy_knows_must_be_in_the_certificate(job: Job, server: Server, proxy: Proxy) -> None:
    port = server.url.rpartition(":")[2]
    code, said = job.run(f"https://no-such-host.invalid:{port}/e.tar", ca=server.ca, proxy=proxy.url)
    assert (code, "Hostname mismatch" in said) == (1, True)
    assert "install a valid certificate for that name on the server" in said
    assert "delivery.ca" not in said
    assert proxy.asked == [f"no-such-host.invalid:{port}"]


def test_a_redirect_to_a_name_that_is_none_is_reported(job: Job, server: Server, proxy: Proxy) -> None:
    server.answers["/moved"] = gives(b"", 302, Location="https://ex\xe4mple.bank/e.tar")
    code, said = job.run(f"{server.url}/moved", ca=server.ca, proxy=proxy.url)
    assert (code, said.partition(":")[0]) == (1, "FetchFailed")


def test_the_environment_names_no_proxy(job: Job, server: Server, proxy: Proxy) -> None:
    """Whoever can write it (a webhook, say) decides nothing: what the order says is all."""
    job.monkeypatch.setattr(addresses, "_explain_refusal", lambda _: "")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        job.monkeypatch.setenv(name, proxy.url)
    assert job.run(f"{server.url}/e.tar", ca=server.ca) == (0, "")
    assert proxy.asked == []
