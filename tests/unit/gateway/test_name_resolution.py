"""A busy name server takes no pods away: what it does not answer is not known, whatever it says to other names."""

import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_gateway.serving.pods import qualify_service

KUBERNETES = "search team.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.1\noptions ndots:5"
NAMES = {
    "a Service gets the cluster's domain": (KUBERNETES, "m-pods.team.svc", "m-pods.team.svc.cluster.local."),
    "of another domain": ("search a.svc.k8s.example svc.k8s.example", "m-pods.a.svc", "m-pods.a.svc.k8s.example."),
    "in a namespace named svc": (
        "search svc.svc.cluster.local svc.cluster.local cluster.local",
        "m-pods.svc.svc",
        "m-pods.svc.svc.cluster.local.",
    ),
    "a network's own domain that begins so comes first": (
        "search svc.example.com team.svc.cluster.local svc.cluster.local cluster.local",
        "m-pods.team.svc",
        "m-pods.team.svc.cluster.local.",
    ),
    "a name that is no Service's stays": (KUBERNETES, "localhost", "localhost"),
    "an absolute name stays": (KUBERNETES, "m-pods.team.svc.cluster.local.", "m-pods.team.svc.cluster.local."),
    "a machine outside of a cluster": (
        "search example.com\nnameserver 192.0.2.1",
        "m-pods.team.svc",
        "m-pods.team.svc",
    ),
    "no settings": ("", "m-pods.team.svc", "m-pods.team.svc"),
}


@pytest.mark.parametrize(("settings", "host", "name"), NAMES.values(), ids=NAMES)
def test_a_services_name_is_made_absolute(settings: str, host: str, name: str) -> None:
    assert qualify_service(host, settings) == name


SERVER = """
import socket, threading
def serve(server):
    while True:
        asked, peer = server.recvfrom(512)
        labels, at = [], 12
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += asked[at] + 1
        right = labels == ["m-pods", "team", "svc", "cluster", "local"]
        if right and asked[at + 1 : at + 3] == b"\\0\\1":
            continue  # The answer with the address is the one that does not come.
        flags = bytes([0x81, 0x80 if right else 0x83])
        server.sendto(asked[:2] + flags + asked[4:6] + bytes(6) + asked[12:], peer)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
threading.Thread(target=serve, args=(server,), daemon=True).start()
import asyncio
from r1plus_gateway.serving.pods import resolve_service
try:
    print("pods", sorted(asyncio.run(resolve_service("m-pods.team.svc", 8001))))
except OSError:
    print("not known")
"""


@pytest.mark.unit_slow
def test_a_missing_answer_is_none_and_not_an_empty_one(tmp_path: Path) -> None:
    """With the system's own resolver, and a name server that answers all but what matters, in namespaces of its own."""
    settings, order, program = (tmp_path / name for name in ("resolv.conf", "nsswitch.conf", "server.py"))
    settings.write_text(f"{KUBERNETES} timeout:1 attempts:1\n")
    order.write_text("hosts: dns\n")
    program.write_text(SERVER)
    mounts = f"mount --bind {settings} /etc/resolv.conf && mount --bind {order} /etc/nsswitch.conf"
    script = f"ip link set lo up && {mounts} && exec {sys.executable} {program}"
    command = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-ec", script]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stdout) == (0, "not known\n"), answer.stderr
