"""`r1plus serve` with the real Triton: one machine, no cluster, and nothing left of it."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import InternalServerError

from devcluster.cache import cache_dir
from r1plus_contract.metrics import ACCURACY_RATIO, GATEWAY_PODS
from r1plus_contract.monitor.admission import TOKEN_FILE
from r1plus_edge.gateway import load_tenant
from r1plus_edge.pods.processes import (
    SHARED_MEMORY,
    find_processes,
    name_region,
    read_proportional_memory,
    read_thread_seconds,
)
from r1plus_edge.report import ServePhase
from r1plus_gateway.store.database.opening import StoreConfig
from r1plus_gateway.store.ledger.repository import MetaName, write_meta
from r1plus_gateway.store.tenant import TenantStore
from support.edge.owner import owning
from support.edge.served import COMMAND, ENGINE_PROGRAMS, Served, read_objects, serving, split_processes
from support.edge.suites import write_part
from support.waiting import wait_until

pytestmark = [pytest.mark.edge, pytest.mark.timeout(3000)]
STOCKHOLM = "Stockholm"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    suites = tmp_path_factory.mktemp("suites")
    with serving(tmp_path_factory.mktemp("serve"), write_part(suites / "part-v1")) as running:
        yield running


def answers(served: Served) -> bool:
    response = served.ask()
    return response.status_code == 200 and STOCKHOLM in response.text


def test_its_answers_name_the_revision_and_verdict_that_the_plan_recorded(served: Served) -> None:
    response = served.ask()
    assert response.headers["x-r1plus-verdict"] == "Pass"
    (revision,) = read_objects(served.folder, "ControllerRevision")
    assert response.headers["x-r1plus-revision"] == revision["metadata"]["name"]
    assert '"verdict":"Pass"' in revision["metadata"]["annotations"]["r1plus.ai/verdict"]
    # No folder of this machine is part of what was measured.
    assert str(served.folder.root) not in str(revision["data"]["identity"]) + revision["data"]["configPbtxt"]


def test_a_second_serve_on_the_folder_is_refused_and_the_first_goes_on(served: Served, tmp_path: Path) -> None:
    second = served.call("--tier", "edge", "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert f"r1plus serve runs there already (pid {served.pid})" in second.stderr
    assert answers(served)


@pytest.mark.parametrize(
    ("header", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "https://evil.example"}, 403)],
    ids=["a name that was rebound to loopback", "a page of another origin"],
)
def test_a_browser_is_no_way_in_even_with_the_key(served: Served, header: dict[str, str], status: int) -> None:
    assert served.ask(**header).status_code == status


def test_no_other_port_lets_a_browser_read_who_has_asked_or_what_was_measured(served: Served) -> None:
    for url in (
        served.status.metrics_url,
        f"{served.status.monitor_url}/metrics",
        f"{served.status.monitor_url}/verdict",
    ):
        rebound = httpx.get(url, headers={"Host": "evil.example"}, trust_env=False)
        assert (rebound.status_code, rebound.text.partition(":")[0]) == (421, "Host"), url


def test_without_the_admission_token_the_gateway_sends_nothing_to_the_pod(served: Served) -> None:
    (token,) = served.folder.pods.glob(f"*/volumes/admission/{TOKEN_FILE}")
    hidden = token.with_name("hidden")
    token.rename(hidden)
    wait_until(lambda: served.ask().status_code == 503, "nothing answers without the token")
    served.until(ServePhase.UNAVAILABLE)  # The gateway may say it first.
    hidden.rename(token)
    wait_until(lambda: answers(served), "it answers again")


@pytest.mark.parametrize(
    "program", ["tritonserver", "triton_python_backend_stub", "-m r1plus_monitoring ", "r1plus_gateway"]
)
def test_a_part_that_is_killed_comes_back_by_itself(served: Served, program: str) -> None:
    before = served.find(program)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: served.find(program) != before, f"another {program} runs", 600, retry_on=(StopIteration,))
    wait_until(lambda: answers(served), "it answers again", 600, retry_on=(httpx.HTTPError,))
    assert served.status.verdict == "Pass"


def test_an_engine_that_hangs_leaves_traffic_is_told_as_an_outage_and_is_restarted(served: Served) -> None:
    """Triton says all the while that it is live, and its model ready."""
    program = "triton_python_backend_stub"
    before, restarts = served.find(program), served.status.restarts
    os.kill(before, signal.SIGSTOP)

    def find_condition(text: str) -> str:
        return next((one for one in served.status.conditions if text in one), "")

    wait_until(lambda: find_condition("triton is not ready: the engine hangs"), "it leaves traffic", 600)
    served.until(ServePhase.UNAVAILABLE)
    assert served.ask().status_code == 503
    outage = wait_until(lambda: find_condition("QualityVerified: "), "its monitor tells what the probes get", 600)
    assert "this is an outage, not an accuracy drop" in outage
    wait_until(lambda: served.find(program) != before, "another engine runs", 900, retry_on=(StopIteration,))
    served.until(ServePhase.SERVING)
    wait_until(lambda: answers(served), "it answers again", 600)
    assert (served.status.restarts, served.status.verdict) == (restarts + 1, "Pass")
    assert not find_condition("CrashLooping")


def test_no_other_user_may_read_the_memory_by_which_triton_hands_prompts_on(served: Served) -> None:
    assert answers(served)
    regions = list(SHARED_MEMORY.glob(f"{name_region(served.folder.root)}*"))
    assert regions and {stat.filemode(one.stat().st_mode) for one in regions} == {"-rw-------"}


def test_triton_listens_at_no_port_and_at_sockets_that_no_other_user_reaches(served: Served) -> None:
    assert answers(served)
    assert list_addresses(served.find(program) for program in ENGINE_PROGRAMS) == set()
    sockets = sorted(served.folder.pods.glob("*/volumes/tmp/*.sock*"))
    assert [path.name for path in sockets] == ["grpc.sock:8001", "http.sock", "metrics.sock"]
    modes = {stat.filemode(path.stat().st_mode) for path in (served.folder.root, *sockets)}
    assert modes == {"drwx------", "srwx------"}


def read_processors(process: int) -> str:
    """Return the processors that a process may use, as the kernel writes them."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("Cpus_allowed_list:"))


def list_addresses(processes: Iterable[int]) -> set[str]:
    """Return the addresses at which processes listen, as the kernel writes them."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    addresses = {f"socket:[{fields[9]}]": fields[1].partition(":")[0] for fields in lines if fields[3] == "0A"}
    links = [str(one.readlink()) for process in processes for one in Path(f"/proc/{process}/fd").iterdir()]
    return {addresses[link] for link in links if link in addresses}


def test_it_listens_on_loopback_alone_and_there_has_metrics_of_gateway_and_monitor(served: Served) -> None:
    others, engine = split_processes(served)
    addresses = list_addresses([*others, *engine])
    # As the kernel writes 127.0.0.1, and ::ffff:127.0.0.1 where a program has IPv6 as well.
    assert addresses - {"0000000000000000FFFF00000100007F"} == {"0100007F"}
    metrics = {served.status.metrics_url: GATEWAY_PODS, f"{served.status.monitor_url}/metrics": ACCURACY_RATIO}
    for url, series in metrics.items():
        assert re.search(rf"^{series}[ {{]", httpx.get(url, trust_env=False).text, re.MULTILINE), url


def test_all_but_the_engine_takes_250_mib_at_most(served: Served) -> None:
    memory = read_proportional_memory(split_processes(served)[0]) / 2**20
    print(f"{memory:.0f} MiB")
    assert memory <= 250


def test_what_runs_has_the_processors_of_serve_and_the_engine_takes_as_many_as_its_r1plusengine_says(
    served: Served,
) -> None:
    allowed = {read_processors(process) for part in split_processes(served) for process in part}
    assert allowed == {read_processors(served.pid)}
    triton = [served.find(program) for program in ENGINE_PROGRAMS]
    before = [read_thread_seconds(process) for process in triton]
    with ThreadPoolExecutor(4) as callers:
        assert all(list(callers.map(lambda _: answers(served), range(64))))
    after = [read_thread_seconds(process) for process in triton]
    used = [now - then.get(task, 0.0) for was, then in zip(after, before, strict=True) for task, now in was.items()]
    # One thread computes: what the others need is less than a third of that, however busy the machine is.
    busiest, others = max(used), sum(used) - max(used)
    print(f"Triton's busiest thread {busiest:.2f} s of a processor, all others {others:.2f} s")
    assert others < busiest / 3


def test_without_any_flag_it_calculates_also_after_its_calculator_was_killed(served: Served) -> None:
    with owning(served) as owner:
        assert owner.calculate("integrate(x^2, x, 0, 3)")["exact"] == "9"
        os.kill(served.find("r1plus_calculator"), signal.SIGKILL)
        wait_until(
            lambda: owner.calculate("diff(sin(x), x)")["exact"] == "cos(x)",
            "another one calculates",
            600,
            retry_on=(InternalServerError,),
        )


def test_after_a_power_cut_it_serves_by_the_recorded_verdict_with_the_same_key_and_has_lost_nothing(
    served: Served,
) -> None:
    with owning(served) as owner:
        store, conversation = owner.add_handbook(), owner.begin()
        assert owner.cite(store) == "handbook.md"
        owner.until_hybrid(store)
    wait_until(lambda: served.status.search == "words and meaning", "its status says so, too")
    assert "documents   searched by words and meaning" in served.call("status").stdout
    key = served.folder.key.read_text()
    served.kill()
    assert "Stopped" in served.call("status").stdout
    served.start()
    served.until_announced()
    assert answers(served)
    assert served.folder.key.read_text() == key
    assert len(read_objects(served.folder, "ControllerRevision")) == 1
    assert sum(step.processor_seconds for step in served.status.steps) < 60, "a quiet machine needs no minute"
    with owning(served) as owner:
        assert owner.search(store) == "hybrid"
        assert owner.cite(store) == "handbook.md"
        assert owner.say(conversation, "What is the code of the cabin?")["turns"] == 1
        assert owner.calculate("factor(x^2 - 1)")["exact"] == "(x - 1)*(x + 1)"


def set_retention_back(served: Served) -> None:
    """Let the data have seen nothing for three years, as if the machine's clock were ahead by that."""
    folder, then = served.folder, time.time() - 3 * 365 * 86400

    async def write() -> None:
        store = TenantStore(StoreConfig(load_tenant(folder).uid, folder.secret, folder.store))
        assert await store.open(), store.state
        value = json.dumps({"moment": then, "held_from": None})
        await store.write(lambda ledger: write_meta(ledger.connection, MetaName.RETENTION_TIME, value))
        await store.close()

    asyncio.run(write())


def test_its_owner_confirms_a_clock_far_ahead_and_does_what_administrators_do(served: Served) -> None:
    served.kill()
    set_retention_back(served)
    served.start()
    served.until_announced()

    def find_problem() -> str:
        return next((one for one in served.status.conditions if one.startswith("DataReady: ClockAhead: ")), "")

    problem = wait_until(find_problem, "its status says that retention waits")
    assert f"run `r1plus serve confirm-time --data {served.folder.root}`" in problem
    assert problem in served.call("status").stdout and problem in served.output
    confirmed = served.call("confirm-time")
    assert re.fullmatch(r"The gateway goes by 20\S+Z\n", confirmed.stdout), confirmed.stderr
    wait_until(lambda: not find_problem(), "retention goes on")
    token = served.call("token").stdout.strip()
    environment = {**os.environ, "R1PLUS_GATEWAY": served.status.url, "R1PLUS_GATEWAY_TOKEN": token}

    def administer(*words: str) -> str:
        done = subprocess.run([COMMAND, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "records are whole" in administer("audit")
    person, said = "anna@example.com", {"items": [{"type": "message", "role": "user", "content": "Hello"}]}
    headers = {
        "Authorization": f"Bearer {administer('key', 'create', 'shop', '--end-users').strip()}",
        "x-r1plus-end-user": person,
    }
    url = f"{served.status.url}/v1/conversations"
    assert httpx.post(url, json=said, headers=headers, trust_env=False).status_code == 200
    receipt = json.loads(administer("tenant", "erase", "--end-user", person, "--yes"))
    assert (receipt["conversations"], receipt["items"], len(receipt["data_keys"])) == (1, 1, 1)


def test_a_stop_ends_all_and_says_so(served: Served) -> None:
    stop = served.call("stop")
    assert (stop.returncode, stop.stdout) == (0, "Stopped; nothing is left running\n")
    assert served.wait() == 0
    assert served.is_gone()
    assert list(served.folder.pods.iterdir()) == []
    # It says so, or on a machine that is too busy that the kernel has ended it.
    assert served.output.splitlines()[-1].startswith("Stopped")


MACHINES = {
    "no room on its disk": (
        "mount -t tmpfs -o size=64m,mode=700 tmpfs {data}",
        "64 MiB of disk are free, 1024 MiB are",
    ),
    "no room on the disk of what it fetches": (
        "mkdir {own} && mount -t tmpfs -o size=64m,mode=700 tmpfs {own} && export R1PLUS_CACHE={own}",
        "own: 64 MiB of disk are free, 512 MiB are needed; free some, or name a folder on another disk with R1PLUS_CACHE",
    ),
    "a read-only disk": ("mount -t tmpfs -o ro,mode=700 tmpfs {data}", "Read-only file system"),
    "1 GiB of memory": (
        "sed 's/^MemTotal:.*/MemTotal: 1048576 kB/' /proc/meminfo >{own} && mount --bind {own} /proc/meminfo",
        "0.16 GiB. This machine has too little memory for any context; it takes one with 1.75 GiB",
    ),
    "no AVX2": ("sed 's/ avx2//' /proc/cpuinfo >{own} && mount --bind {own} /proc/cpuinfo", "it has no AVX2"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize(("change", "words"), MACHINES.values(), ids=MACHINES)
def test_a_machine_is_refused_in_words_and_nothing_is_left_there(tmp_path: Path, change: str, words: str) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    script = f'{change.format(data=data, own=tmp_path / "own")} && exec "$@"'
    command = [COMMAND, "serve", "--tier", "edge", "--data", data, "--listen", "127.0.0.1:0"]
    result = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-ec", script, "sh", *command],
        env={**os.environ, "R1PLUS_CACHE": str(cache_dir())},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, words in result.stderr) == (1, True), result.stdout + result.stderr
    assert find_processes(data) == []


CLOCK = """
import os, time
now = time.time
time.time = lambda: now() if os.path.exists({sign!r}) else 0.0
"""
"""The machine's own clock is others', too: this one is of a process, and right once a file is there."""


def test_with_a_clock_of_1970_it_waits_says_so_and_goes_on_once_that_is_right(tmp_path: Path) -> None:
    sign = tmp_path / "is-set"
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(sign=str(sign)))
    served = Served(tmp_path, write_part(tmp_path / "part-v1"), environment={"PYTHONPATH": str(tmp_path)})
    served.start()
    try:
        problem = "clock: it says 1970-01-01T00:00:00Z, before r1plus was made"
        wait_until(lambda: problem in served.output, "it says what is wrong", 600, evidence=lambda: served.output)
        assert problem in served.call("status").stdout
        assert " machine " not in served.output
        sign.touch()
        wait_until(lambda: " machine " in served.output, "it goes on", 600, evidence=lambda: served.output)
        os.kill(served.pid, signal.SIGINT)
        assert served.wait() == 0
        wait_until(served.is_gone, "nothing of it runs")
    finally:
        served.end()


def test_an_engine_that_fails_its_suite_is_refused_and_never_called(tmp_path: Path) -> None:
    served = Served(tmp_path, write_part(tmp_path / "wrong-v1", wrong=4))
    served.start()
    try:
        served.until(ServePhase.REFUSED)
        assert "GateFailed" in served.output
        (gate,) = [step for step in served.status.steps if step.name == "gate"]
        assert gate.detail.startswith("Fail: ") and gate.seconds > 0
        wait_until(served.folder.key.exists, "its gateway has a key", evidence=lambda: served.evidence)
        assert served.ask().status_code == 404
        status = served.call("status")
        assert status.returncode == 1
        assert "Refused" in status.stdout
    finally:
        served.end()


def test_a_start_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    served = Served(tmp_path, write_part(tmp_path / "part-v1"))
    served.start()
    try:
        wait_until(lambda: "gate " in served.output, "the gate has begun", 600, evidence=lambda: served.evidence)
        os.kill(served.pid, signal.SIGINT)
        assert served.wait() == 0
        wait_until(served.is_gone, "nothing of it runs")
    finally:
        served.end()
