"""From where an engine may be fetched, and from where never."""

import pytest

from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, FillRefusal
from r1plus_model_repo.engine_fetch.addresses import parse_url, redact_url, resolve_allowed
from r1plus_model_repo.engine_fetch.errors import FillError

URL = "https://models.example/engine.tar"

NO_SERVERS = {
    "loopback": "127.0.0.1",
    "loopback, another": "127.9.9.9",
    "loopback of IPv6": "::1",
    "loopback of IPv4 in IPv6": "::ffff:127.0.0.1",
    "metadata": "169.254.169.254",
    "metadata of IPv4 in IPv6": "::ffff:169.254.169.254",
    "link-local of IPv6": "fe80::1%eth0",
    "metadata of AWS over IPv6": "fd00:ec2::254",
    "metadata of Alibaba": "100.100.100.200",
    "Azure's agent": "168.63.129.16",
    "nowhere": "0.0.0.0",
    "nowhere of IPv6": "::",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
}


@pytest.mark.parametrize("address", NO_SERVERS.values(), ids=NO_SERVERS.keys())
def test_a_name_that_leads_to_no_server_is_refused_for_good(address: str) -> None:
    with pytest.raises(FillError, match=r"models\.example resolves to") as raised:
        resolve_allowed(parse_url(URL), lambda _host, _port: ["10.0.0.5", address])
    assert (raised.value.reason, raised.value.exit_code) == (FillRefusal.FETCH_REFUSED, EXIT_PERMANENT)


@pytest.mark.parametrize("address", ["10.0.0.5", "192.168.1.1", "172.16.0.1", "100.64.0.1", "8.8.8.8", "fd12::5"])
def test_servers_of_ones_own_network_and_of_the_world_are_not(address: str) -> None:
    assert resolve_allowed(parse_url(URL), lambda _host, _port: [address]) == [address]


def test_the_port_of_the_url_is_what_is_resolved() -> None:
    asked = []
    resolve_allowed(
        parse_url("https://models.example:8443/x"), lambda host, port: asked.append((host, port)) or ["10.0.0.5"]
    )  # type: ignore[func-returns-value]
    resolve_allowed(parse_url(URL), lambda host, port: asked.append((host, port)) or ["10.0.0.5"])  # type: ignore[func-returns-value]
    assert asked == [("models.example", 8443), ("models.example", 443)]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://models.example/x", "only https"),
        ("file:///etc/passwd", "only https"),
        ("ftp://models.example/x", "only https"),
        ("https://user:secret@models.example/x", "a user or a password"),
        ("https:///x", "it has no host"),
        ("https://models.example:0/x", "it has no host"),
        ("https://models.example:99999/x", "not a valid URL"),
        ("https://[::1/x", "not a valid URL"),
    ],
)
def test_what_is_no_plain_https_address_is_refused(url: str, why: str) -> None:
    with pytest.raises(FillError, match=why) as raised:
        parse_url(url)
    assert raised.value.reason is FillRefusal.FETCH_REFUSED


def test_a_name_without_an_address_may_have_one_at_the_next_attempt() -> None:
    def nothing(_host: str, _port: int) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(FillError, match=r"models\.example does not resolve") as raised:
        resolve_allowed(parse_url(URL), nothing)
    assert raised.value.exit_code != EXIT_PERMANENT


def test_a_signed_urls_secret_is_told_to_nobody() -> None:
    assert redact_url("https://models.example/x?X-Amz-Signature=abc#d") == "https://models.example/x"
