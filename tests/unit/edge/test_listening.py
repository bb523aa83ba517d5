"""Where the gateway listens, and what is refused."""

import contextlib
import socket
from pathlib import Path

import pytest

from r1plus_edge.errors import EdgeError, EdgeRequestError
from r1plus_edge.pods.places import LOOPBACK, is_free
from r1plus_edge.start.listening import DEFAULT_PORT, LOOPBACK_NAMES, Listening, open_listener, read_listening
from support.edge.certificates import write_certificate
from support.ports import free_port
from support.tables import for_each

REFUSED = {
    "every address without a certificate": ("0.0.0.0:9000", "API keys would travel in the clear"),
    "another machine's network without a certificate": ("192.0.2.7:9000", "API keys would travel in the clear"),
    "a name": ("example.org:9000", "is not ADDRESS:PORT"),
    "no port": ("127.0.0.1", "is not ADDRESS:PORT"),
    "a port that is a word": ("127.0.0.1:http", "is not ADDRESS:PORT"),
    "a port beyond all": ("127.0.0.1:70000", "a port from 1024 to 65535"),
    "a port of the system": ("127.0.0.1:80", "a port from 1024 to 65535"),
    "a port below zero": ("127.0.0.1:-1", "is not ADDRESS:PORT"),
    "a digit of another script": ("127.0.0.1:٨٠٨٠", "is not ADDRESS:PORT"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_an_address_is_refused_with_what_to_give(text: str, words: str) -> None:
    with pytest.raises(EdgeRequestError, match=words):
        read_listening(text, None, None)


def test_a_port_that_is_taken_is_refused_where_it_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EdgeError, match=f"port {port} is taken"):
            read_listening(f"127.0.0.1:{port}", None, None)


def test_without_a_wish_a_port_that_is_taken_makes_room_for_another() -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # Somebody has it already.
            stack.enter_context(socket.create_server((LOOPBACK, DEFAULT_PORT)))
        port = read_listening("", None, None).port
    assert port not in (0, DEFAULT_PORT)
    assert is_free(LOOPBACK, port)


def test_a_port_that_was_taken_meanwhile_is_refused() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EdgeError, match=f"--listen 127.0.0.1:{port}: Address already in use; end what listens"):
            open_listener(Listening(LOOPBACK, port))


def test_loopback_answers_to_its_own_names_only() -> None:
    listening = read_listening(f"localhost:{(port := free_port())}", None, None)
    assert (listening.host, listening.port, listening.hosts) == ("127.0.0.1", port, LOOPBACK_NAMES)
    assert listening.local_url == f"http://127.0.0.1:{port}"


@for_each(
    ("address", "host", "url"),
    {
        "another one of loopback": ("127.0.0.2", "127.0.0.2", "http://127.0.0.2"),
        "IPv6 in full": ("[0:0:0:0:0:0:0:1]", "::1", "http://[::1]"),
    },
)
def test_a_gateway_on_loopback_answers_to_its_own_address(address: str, host: str, url: str) -> None:
    listening = read_listening(f"{address}:{(port := free_port())}", None, None)
    assert listening.local_url == f"{url}:{port}"
    assert host in listening.hosts


def test_port_zero_is_any_free_one() -> None:
    assert read_listening(":0", None, None).port > 0


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path)


def test_with_a_certificate_it_listens_anywhere_and_answers_to_any_name(certificate: tuple[Path, Path]) -> None:
    listening = read_listening(f"0.0.0.0:{(port := free_port())}", *certificate)
    assert (listening.hosts, listening.local_url) == ((), f"https://localhost:{port}")


def test_an_address_of_another_machine_is_refused_whatever_certificate_there_is(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(EdgeError, match=r"--listen 192.0.2.7:9000: .*; name an address of this machine"):
        read_listening("192.0.2.7:9000", *certificate)


def test_half_of_a_certificate_or_a_broken_one_is_refused(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(EdgeRequestError, match="give both"):
        read_listening("", certificate[0], None)
    with pytest.raises(EdgeRequestError, match="give a certificate and its key as PEM files"):
        read_listening("", certificate[1], certificate[1])
    with pytest.raises(EdgeRequestError, match="No such file"):
        read_listening("", certificate[0].with_name("gone"), certificate[1])
