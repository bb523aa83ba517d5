"""On real Triton: what its interfaces let a caller do to the server, and what two servers on one node share."""

import json
import re

import pytest

from e2e.isolation.matrix import Trial
from e2e.isolation.stage import PLACES, Place, Side, World, stands_in
from e2e.waiting import wait_for
from r1plus_contract.names import DIR_MODELS, PORT_HTTP, PORT_TRITON_METRICS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

READY = {"method": "GET", "path": "/v2/health/ready"}
REGION = json.dumps({"key": "/dev/shm/b", "offset": 0, "byte_size": 64})
REQUESTS = {
    27: {
        "load": ("POST", "/v2/repository/models/r1plus/load", "{}"),
        "unload": ("POST", "/v2/repository/models/r1plus/unload", "{}"),
        "what there is to load": ("POST", "/v2/repository/index", "{}"),
    },
    28: {
        "register a region": ("POST", "/v2/systemsharedmemory/region/b/register", REGION),
        "what is registered": ("GET", "/v2/systemsharedmemory/status", ""),
        "unregister all": ("POST", "/v2/systemsharedmemory/unregister", ""),
        "register a GPU's": ("POST", "/v2/cudasharedmemory/region/b/register", REGION),
    },
    29: {
        "log to a file": ("POST", "/v2/logging", json.dumps({"log_file": "/tmp/log", "log_verbose_level": 1})),
        "how it logs": ("GET", "/v2/logging", ""),
        "trace to a file": ("POST", "/v2/trace/setting", json.dumps({"trace_file": "/tmp/trace", "trace_level": ["TENSORS"]})),
        "trace a model": ("POST", "/v2/models/r1plus/trace/setting", json.dumps({"trace_level": ["TENSORS"]})),
    },
}  # fmt: skip
CASES = [
    pytest.param(number, of, id=f"{number}: {', '.join(requests)}, from {of}", marks=pytest.mark.vector(number))
    for number, requests in REQUESTS.items()
    for of in PLACES
]
LOOK = "import os, pathlib; print(sorted(os.listdir('/dev/shm'))); print(os.readlink('/proc/self/ns/ipc'))"
OWN = ("pid", "net", "mnt", "ipc", "uts")
SPACES = f"import os; print(' '.join(os.readlink(f'/proc/self/ns/{{n}}') for n in {OWN!r}))"


@pytest.mark.parametrize(("number", "of"), CASES)
def test_a_caller_cannot_change_the_server(world: World, trial: Trial, number: int, of: str) -> None:
    """Its own, which is the only one that it reaches: B's is the other test's."""
    place = PLACES[of](world)
    stands_in(trial, world, place)
    host = "127.0.0.1" if of == "its server" else world.a.service
    seen = place.one(host, PORT_HTTP, **READY)
    trial.open("the same server says that it is ready", seen.startswith("open 200"), seen)

    tries = [
        {"name": name, "host": host, "port": PORT_HTTP, "method": method, "path": path, "body": body}
        for name, (method, path, body) in REQUESTS[number].items()
    ]
    ended = place.try_all(tries)

    let = {name: how for name, how in ended.items() if not re.match(r"open (4\d\d|501) ", how)}
    trial.shut("its interfaces", not let, let)


@pytest.mark.vector(28)
def test_two_servers_share_no_memory(world: World, trial: Trial) -> None:
    mine, theirs = world.a.triton(), world.b.triton()
    stands_in(trial, world, mine)
    mine.run("python3", "-c", "open('/dev/shm/of-a', 'w').write('x')")
    seen, space = mine.run("python3", "-c", LOOK).splitlines()
    trial.open("a region of one's own", "of-a" in seen, seen)

    found, other = theirs.run("python3", "-c", LOOK).splitlines()

    trial.shut("the other server's /dev/shm", "of-a" not in found and other != space, (found, other))


WATCH = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); watch = lambda: libc.inotify_init1(0)"
ONE_MORE = f"{WATCH}; print('watches' if watch() >= 0 else os.strerror(ctypes.get_errno()))"
HOLD_ALL = f"""
{WATCH}
import time
count = 0
while watch() >= 0:
    count += 1
print(count, os.strerror(ctypes.get_errno()), flush=True)
if os.fork() == 0:
    os.setsid()
    for stream in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    end = time.monotonic() + 600
    while time.monotonic() < end and not os.path.exists("/tmp/let-go"):
        time.sleep(0.2)
"""
"""Takes all that the kernel gives to one user, and holds them until /tmp/let-go is there."""


@pytest.mark.vector(11)
def test_what_the_kernel_counts_by_user_is_a_tenants_own(world: World, trial: Trial) -> None:
    """Inotify instances here; epoll watches, pipes and message queues are counted alike."""
    place = world.a.triton()
    stands_in(trial, world, place)
    place.run("rm", "-f", "/tmp/let-go")
    taken = place.run("python3", "-c", HOLD_ALL)
    try:
        own, others = world.a.gateway(), (world.b.triton(), world.b.gateway())
        felt = own.run("python3", "-c", ONE_MORE)
        trial.open("another pod of the same user gets none", "Too many open files" in felt, (taken, felt))

        got = {str(other): other.run("python3", "-c", ONE_MORE).strip() for other in others}

        trial.shut("pods of the other tenant", set(got.values()) == {"watches"}, got)
    finally:
        place.run("touch", "/tmp/let-go")


def counted(world: World, side: Side) -> dict[str, float]:
    """Of a server, as Prometheus would read it."""
    text = world.watcher().one(side.address, PORT_TRITON_METRICS, method="GET", path="/metrics")
    found: dict[str, float] = {}
    for name, value in re.findall(r"^(nv_\w+)(?:\{[^}]*\})? ([0-9.e+]+)$", text, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found


ASK = """
import sys
from r1plus_cli.deployment.stream import Question, ask
for _ in range(2):
    print(ask(sys.argv[1], Question("What is the capital of Sweden?", max_new_tokens=4)).text)
"""


@pytest.mark.vector(31)
def test_an_answer_is_never_taken_from_a_cache_of_answers(world: World, trial: Trial) -> None:
    trial.by(world.a.address, str(world.a.pod["status"]["podIP"]))
    before = counted(world, world.a).get("nv_inference_request_success", 0.0)
    place = world.a.triton()
    command = place.run("python3", "-c", "print(open('/proc/1/cmdline').read().replace(chr(0), ' '))")
    wait_for(
        lambda: counted(world, world.a).get("nv_inference_request_success", 0.0) > before,
        "the server counts what its monitor asks it",
        period_s=1.0,
    )
    found = counted(world, world.a)
    trial.open("the server's counters", "--model-repository" in command and found, (command, sorted(found)))

    config = place.run("python3", "-c", f"print(open('{DIR_MODELS}/r1plus/config.pbtxt').read())")

    caches = [name for name in found if "cache" in name and found[name] > 0]
    trial.shut("a cache", not caches and "--cache" not in command and "response_cache" not in config, (caches, command))


@pytest.mark.vector(30)
def test_what_one_tenant_asked_warms_no_cache_of_anothers(world: World, trial: Trial) -> None:
    """A prefix cache is a server's own, and a server is a tenant's own: no process and no memory is shared, and no way leads there."""
    mine, theirs = world.a.triton(), world.b.triton()
    stands_in(trial, world, mine)
    seen = mine.one("127.0.0.1", PORT_HTTP, **READY), theirs.one("127.0.0.1", PORT_HTTP, **READY)
    trial.open("each asks its own server", all(how.startswith("open 200") for how in seen), seen)

    spaces = [place.run("python3", "-c", SPACES).split() for place in (mine, theirs)]
    shared = [name for name, here, there in zip(OWN, *spaces, strict=True) if here == there]
    ways = {
        str(place): place.one(world.b.address, port)
        for place in (mine, world.a.ordinary())
        for port in (PORT_HTTP, PORT_HTTP + 1)
    }
    trial.shut(
        "a server in common", not shared and all(how.startswith("shut ") for how in ways.values()), (shared, ways)
    )


@pytest.mark.vector(9)
def test_a_server_has_nothing_of_the_node(world: World, trial: Trial) -> None:
    place = world.a.triton()
    stands_in(trial, world, place)
    router = world.kube.all("pods", "kube-system", "k8s-app=kube-router")[0]["metadata"]["name"]
    privileged = Place(world.kube, "kube-system", router, "kube-router")
    free = status(privileged)
    trial.open("a privileged container has capabilities", int(free["CapEff"], 16) != 0, free)

    bound = status(place)
    held = (bound["CapEff"], bound["CapBnd"], bound["NoNewPrivs"], bound["Seccomp"])
    trial.shut("capabilities, new privileges, system calls", held == ("0" * 16, "0" * 16, "1", "2"), held)
    with pytest.raises(RuntimeError, match="Read-only file system"):
        place.run("/bin/sh", "-c", ": > /opt/mine")


def status(place: Place) -> dict[str, str]:
    """Of a process in that container."""
    text = place.run("cat", "/proc/self/status")
    return dict(re.findall(r"^(\w+):\s*(\S+)", text, re.MULTILINE))
