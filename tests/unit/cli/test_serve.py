"""`r1plus serve`: requests that are refused before anything starts, and a machine where nothing serves."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_cli.errors import CliError
from r1plus_cli.local import SHIPPED_CATALOG, SHIPPED_SUITES
from r1plus_cli.serve.arguments import ServeArguments, build_options
from r1plus_cli.serve.serve_app import STOP_SECONDS, build_end
from r1plus_edge.bundle.install import COMPLETE, CURRENT, switch_current
from r1plus_edge.bundle.manifest import BundleManifest, read_host
from r1plus_edge.bundle.writer import Signer, write_bundle
from r1plus_edge.control import encode_answer
from r1plus_edge.data_folder import DataFolder, open_data_folder
from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.gateway import DRAIN_SECONDS, END_SECONDS
from r1plus_edge.pods.places import short_path
from r1plus_edge.pods.processes import find_processes, has_ended
from r1plus_edge.start.listening import Listening
from r1plus_edge.start.serve import POD_END_SECONDS
from r1plus_edge.update.options import UpdatableOptions
from r1plus_edge.update.request import UpdateRequest, UpdateResult
from r1plus_model_repo.catalog.types import Tier
from r1plus_model_repo.importing.triton_server import WHEEL
from r1plus_operator.observe.suite_signature import KeyPair, generate_key
from support.cli.command import run
from support.edge.bundles import write_release
from support.edge.engines import NAME, write_catalog
from support.edge.suites import write_part

TWO = """
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {name: a}
spec: {tier: edge}
---
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {name: b}
spec: {tier: edge}
"""
ONE = TWO.partition("---")[0]


def in_file(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refusals(folder: Path) -> dict[str, tuple[list[str], str]]:
    broken = write_part(folder / "broken-v1")
    (broken / "items.jsonl").write_text((broken / "items.jsonl").read_text().replace("capital", "Capital", 1))
    other = write_part(folder / "other-v1").rename(folder / "renamed-v1")
    edge = ["--tier", "edge"]
    return {
        "neither tier nor file": ([], "say what to serve"),
        "two deployments": (
            ["-f", in_file(folder / "two.yaml", TWO)],
            "has 2 R1PlusDeployments; one machine serves one",
        ),
        "a field that is misspelt": (
            [
                "-f",
                in_file(folder / "misspelt.yaml", ONE.replace("spec: {tier: edge}", "spec: {tier: edge, tiers: 1}")),
            ],
            "tiers",
        ),
        "a field of a cluster": (
            ["-f", in_file(folder / "pods.yaml", ONE.replace("tier: edge", "tier: edge, replicas: 3"))],
            "spec.replicas: 3: one machine runs one pod",
        ),
        "a tier that the file contradicts": (
            ["-f", in_file(folder / "one.yaml", ONE), "--tier", "lite"],
            "--tier lite: the file has spec.tier: edge",
        ),
        "an engine that nobody knows": ([*edge, "--engine", "nonesuch"], "no engine of this name, and no folder"),
        "a folder that is no engine": ([*edge, "--engine", str(folder)], "no engine of the catalog has these files"),
        "a suite that nobody knows": ([*edge, "--suite", "nonesuch"], "no shipped suite has this name, and no folder"),
        "a suite that was altered": ([*edge, "--suite", str(broken)], "sha256 is"),
        "a suite in another's folder": ([*edge, "--suite", str(other)], "a suite must have the name of its ConfigMap"),
        "every address without a certificate": ([*edge, "--listen", "0.0.0.0:9000"], "would travel in the clear"),
        "a data folder that is a file": ([*edge, "--data", in_file(folder / "data", "")], "is a file; name a folder"),
        "an engine of another tier": (
            [*edge, "--engine", "smollm2-full-f16"],
            "it is of tier full, and tier edge is asked",
        ),
        "more context than the model has": (
            [
                "-f",
                in_file(folder / "long.yaml", ONE.replace("tier: edge", "tier: edge, context: {maxTokens: 100000}")),
            ],
            "spec.context.maxTokens: 100000",
        ),
    }


NAMES = (
    "neither tier nor file",
    "two deployments",
    "a field that is misspelt",
    "a field of a cluster",
    "a tier that the file contradicts",
    "an engine that nobody knows",
    "a folder that is no engine",
    "a suite that nobody knows",
    "a suite that was altered",
    "a suite in another's folder",
    "every address without a certificate",
    "a data folder that is a file",
    "an engine of another tier",
    "more context than the model has",
)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which Triton counts as fetched, so that no test fetches it."""
    monkeypatch.setenv("R1PLUS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "tritonserver" / WHEEL.replace("==", "-")).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_refused_with_what_is_wrong(fetched: Path, name: str) -> None:
    words, expected = refusals(fetched)[name]
    data = [] if "--data" in words else ["--data", str(fetched / "own")]
    error = run("serve", *words, *data).exception
    assert isinstance(error, CliError)
    assert expected in str(error)


def test_where_nothing_was_served_status_says_how_to_start_and_stop_has_nothing_to_do(tmp_path: Path) -> None:
    status = run("serve", "status", "--data", tmp_path)
    assert f"nothing was served there; start it: r1plus serve --tier edge --data {tmp_path}" in str(status.exception)
    stop = run("serve", "stop", "--data", tmp_path)
    assert (stop.exit_code, stop.output) == (0, f"Nothing serves from {tmp_path}\n")


VERBS: dict[str, list[str]] = {
    "status": ["status"],
    "stop": ["stop"],
    "token": ["token"],
    "update": ["update", "smollm2-edge-q4-1"],
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_another_user_of_the_machine_is_told_so_by_each_verb(words: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="r1plus-") as name:  # Others may not even pass what pytest makes.
        folder = open_data_folder(Path(name))
        with socket.socket(socket.AF_UNIX) as listener, short_path(folder.control) as path:
            listener.bind(path)
        os.setresuid(12345, 12345, 0)
        try:
            error = run("serve", *words, "--data", name).exception
        finally:
            os.seteuid(0)
            os.setresuid(0, 0, 0)
    assert isinstance(error, CliError)
    assert re.match(rf"--data {name}: it is another user's, and you may not re.*; run this as that user", str(error))


async def test_a_second_signal_does_not_cut_off_the_end() -> None:
    steps = []

    async def serve() -> None:
        try:
            steps.append("serves")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("ended well")

    task = asyncio.create_task(serve())
    end = build_end(task, lambda: steps.append("has so long"))
    await asyncio.sleep(0)
    end()
    await asyncio.sleep(0)
    end()
    await asyncio.wait([task])
    assert steps == ["serves", "has so long", "ended well"]


def test_a_signal_after_the_end_does_not_replace_what_it_says() -> None:
    async def serve() -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(0))

    build_end(asyncio.run(serve()), lambda: None)()


def test_what_a_stop_gives_gateway_and_pods_ends_before_its_limit_and_that_within_five_seconds() -> None:
    assert DRAIN_SECONDS < END_SECONDS
    assert END_SECONDS + POD_END_SECONDS < STOP_SECONDS < 5.0


STUCK = """
import asyncio, signal, subprocess, sys, time
from pathlib import Path
from r1plus_cli.serve.serve_app import build_end, limit_stop
from r1plus_edge.data_folder import hold, open_data_folder
from r1plus_edge.pods.processes import mark
from r1plus_edge.start.serve import guard

async def serve():
    DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('runs', flush=True); time.sleep(600)"
    folder = open_data_folder(Path(sys.argv[1]))
    with hold(folder), guard(folder):
        subprocess.Popen([sys.executable, "-c", DEAF], env=dict(mark(folder.root)), start_new_session=True)
        HANG

async def main():
    task = asyncio.create_task(serve())
    end = build_end(task, lambda: limit_stop(0.5))
    signal.signal(signal.SIGTERM, lambda *_: end())
    await task

asyncio.run(main())
"""
# All but the first in `make test-long NAME=unit-long`: the clock that ends them is the same.
HANGS = {
    "a thread that reads an engine": "await asyncio.to_thread(time.sleep, 600)",
    "an event loop that does not turn": "time.sleep(600)",
    "an end that waits": "try:\n            await asyncio.Event().wait()\n        finally:\n            await asyncio.Event().wait()",
}


@pytest.mark.parametrize(
    "hang",
    [pytest.param(hang, marks=pytest.mark.unit_long if number else ()) for number, hang in enumerate(HANGS.values())],
    ids=HANGS,
)
def test_the_kernel_ends_a_stop_that_takes_too_long_and_the_guardian_what_is_left(tmp_path: Path, hang: str) -> None:
    script = STUCK.replace("HANG", hang)
    with subprocess.Popen([sys.executable, "-c", script, tmp_path / "data"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        assert find_processes(tmp_path / "data") != []
        stop = run("serve", "stop", "--data", tmp_path / "data")
        assert stop.output == "Stopped; nothing is left running\n"
        assert find_processes(tmp_path / "data") == []
        assert process.stdout.read() == b"Stopped after 0.5 s; what still ran is killed\n"
    assert process.returncode == 0


def test_stop_signals_nobody_where_the_holder_has_no_pid_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1plus_cli.serve.serve_app.find_holder", lambda folder: -1)
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    stop = run("serve", "stop", "--data", tmp_path)
    assert "in another container, or on another machine" in str(stop.exception)
    assert killed == []


LINGERING = """
import os, signal, sys, time
from pathlib import Path
from r1plus_edge.data_folder import hold, open_data_folder

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with hold(open_data_folder(Path(sys.argv[1]))):
    print("holds", flush=True)
    signal.sigwait({signal.SIGTERM})
time.sleep(0.5)
Path(sys.argv[2]).touch()
"""


def test_stop_returns_when_the_process_has_ended_and_not_when_it_has_given_up_the_folder(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    command = [sys.executable, "-c", LINGERING, str(tmp_path / "data"), str(ended)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        stop = run("serve", "stop", "--data", tmp_path / "data")
        assert ended.exists()
    assert stop.output == "Stopped; nothing is left running\n"


FADING = """
import os, subprocess, signal, sys, time
from pathlib import Path
from r1plus_edge.data_folder import hold, open_data_folder
from r1plus_edge.pods.processes import mark, read_stat

CHILD = '''
import ctypes, os, sys, threading
threading.Thread(target=os.read, args=(int(sys.argv[1]), 1)).start()
print(os.getpid(), flush=True)
sys.stdin.read()
ctypes.CDLL(None).pthread_exit(None)
'''
folder, end = open_data_folder(Path(sys.argv[1])), int(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with hold(folder):
    command = [sys.executable, "-c", CHILD, str(end)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(end,), env=dict(mark(folder.root)))
    signal.sigwait({signal.SIGTERM})
    child.stdin.close()
    while read_stat(Path(f"/proc/{child.pid}")).state != "Z":
        time.sleep(0.01)
    os._exit(0)
"""


def test_stop_waits_for_a_process_that_ends_and_has_lost_its_variables_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-c", FADING, str(tmp_path / "data"), str(reader)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(reader,)) as process,
        os.fdopen(writer, "wb") as end,
    ):
        assert process.stdout is not None
        child = int(process.stdout.readline())

        def look(seconds: float) -> None:
            if has_ended(process.pid):
                end.close()

        monkeypatch.setattr("r1plus_cli.serve.serve_app.time.sleep", look)
        stop = run("serve", "stop", "--data", tmp_path / "data")
        assert has_ended(child)
    os.close(reader)
    assert stop.output == "Stopped; nothing is left running\n"


UPDATES: dict[str, tuple[list[str], str]] = {
    "nothing is named": ([], "say what to update: an engine, a bundle, an R1PlusDeployment with -f, or --suite"),
    "a file that is not there": (["-f", "/nonesuch.yaml"], "-f /nonesuch.yaml: "),
    "nothing serves": (["smollm2-edge-q4-1"], "nothing serves there now (No such file or directory), so nothing was"),
}


@pytest.mark.parametrize(("words", "expected"), UPDATES.values(), ids=UPDATES)
def test_an_update_that_reaches_nobody_says_why(tmp_path: Path, words: list[str], expected: str) -> None:
    update = run("serve", "update", *words, "--data", tmp_path)
    assert isinstance(update.exception, CliError)
    assert expected in str(update.exception)


def test_software_that_a_link_names_is_switched_beside_itself_and_nothing_else_goes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("software/new", "software/old", "software/older", "home/other"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/r1plus").touch()
        (tmp_path / name / COMPLETE).touch()
    switch_current(tmp_path / "software", tmp_path / "software/old")
    link = tmp_path / "home/link"
    link.symlink_to(tmp_path / "software/new")

    def answer() -> str:
        connection, _ = listener.accept()
        with connection, connection.makefile() as lines:
            request = lines.readline()
            connection.sendall(f"{encode_answer(UpdateResult(True, 'serves'))}\n".encode())
        return request

    with ThreadPoolExecutor() as threads, socket.socket(socket.AF_UNIX) as listener:
        with short_path(DataFolder(tmp_path / "data").control) as path:
            listener.bind(path)
        listener.listen()
        listener.settimeout(60)
        request = threads.submit(answer)
        assert run("serve", "update", "--software", link, "--data", tmp_path / "data").exit_code == 0
        assert str(tmp_path / "software/new") in request.result()
    assert (tmp_path / "software" / CURRENT).resolve() == tmp_path / "software/new"
    assert sorted(one.name for one in (tmp_path / "home").iterdir()) == ["link", "other"]
    assert not (tmp_path / "software/older").exists()


def options_of(**changes: Any) -> UpdatableOptions:
    given = ServeArguments(
        tier=Tier.EDGE,
        file=None,
        engine="",
        gate=None,
        own_suites=(),
        listening=Listening("127.0.0.1", 8400),
        data=None,
        catalogs=(SHIPPED_CATALOG,),
        suites=SHIPPED_SUITES,
        family="smollm2",
    )
    return build_options(replace(given, **changes))


def test_an_update_replaces_what_it_names_and_keeps_the_other_options(tmp_path: Path) -> None:
    part, catalog = write_part(tmp_path / "part-v1"), tmp_path / "catalog"
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "openvino_model.bin").write_text("weights")
    write_catalog(tmp_path / "engine", catalog)
    started = options_of(own_suites=(str(part),))
    updated = started.reread(UpdateRequest(engine=str(tmp_path / "engine"), catalog=str(catalog)))
    assert [engine.name for engine in updated.engines] == [NAME]
    assert updated.given_engine == tmp_path / "engine"
    assert updated.request.spec.accuracy.suite == "part-v1"
    assert updated.request.spec.engine.version == "1.0.1"
    assert {"smollm2-edge-q4-1", NAME} <= {engine.name for engine in updated.catalog}
    assert updated.digest != started.digest


def test_an_update_holds_on_top_of_a_file_that_cannot_be_read_again(tmp_path: Path) -> None:
    part, text = write_part(tmp_path / "part-v1"), ONE.replace("tier: edge", "tier: edge, accuracy: {threshold: 0.9}")
    file = in_file(tmp_path / "served.yaml", text)
    started = options_of(tier=None, file=file)
    Path(file).unlink()  # As standard input, which has ended.
    spec = started.reread(UpdateRequest(suite=str(part))).request.spec
    assert (spec.accuracy.suite, float(spec.accuracy.threshold)) == ("part-v1", 0.9)


def test_standard_input_is_refused_where_it_belongs_to_whoever_waits() -> None:
    refused = run("serve", "-f", "-", "--background")
    assert "-f -: not with --background" in str(refused.exception)


def test_a_file_of_an_update_says_tier_and_suite_itself(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part-v1")
    text = ONE.replace("tier: edge", "tier: lite, accuracy: {suite: smollm2-lite-v1}")
    updated = options_of(own_suites=(str(part),)).reread(UpdateRequest(file=in_file(tmp_path / "lite.yaml", text)))
    assert (updated.request.spec.tier.value, updated.request.spec.accuracy.suite) == ("lite", "smollm2-lite-v1")


UNREADABLE: dict[str, tuple[str, str]] = {
    "a field that is misspelt": (ONE.replace("tier: edge", "tiers: edge"), "tiers"),
    "a field of a cluster": (ONE.replace("tier: edge", "tier: edge, replicas: 3"), "spec.replicas: 3"),
    "a tenant": (
        f"{ONE}---\napiVersion: r1plus.ai/v1alpha1\nkind: R1PlusTenant\nmetadata: {{name: tenant}}\n",
        "an R1PlusTenant holds from a start on",
    ),
}


@pytest.mark.parametrize(("text", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_update_that_cannot_be_read_is_told_as_one(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(EdgeRequestError, match=words):
        options_of().reread(UpdateRequest(file=in_file(tmp_path / "update.yaml", text)))


def pack(folder: Path, key: KeyPair, *, has_software: bool = False) -> Path:
    """Write a bundle of a small engine and a suite; return its file."""
    part = write_part(folder / "part-v1")
    (folder / "engine").mkdir()
    (folder / "engine" / "openvino_model.bin").write_text("weights")
    catalog = write_catalog(folder / "engine", folder / "catalog") / "engines.yaml"
    sources = {"engine/engine.yaml": catalog, "engine/engine/openvino_model.bin": folder / "engine/openvino_model.bin"}
    sources |= {f"suite/{file.name}": file for file in part.iterdir()}
    if has_software:
        sources["wheels/r1plus-0.1.0-py3-none-any.whl"] = catalog
    host = read_host()
    python = host.python if has_software else ""
    manifest = BundleManifest("0.1.0", host.architecture, python, (), engine=NAME, suite="part-v1")
    write_bundle(folder / "bundle.tar", sources, manifest, Signer(key.public, key.sign))
    return folder / "bundle.tar"


def test_a_bundle_is_verified_and_unpacked_before_it_reaches_who_serves(fetched: Path) -> None:
    key = generate_key()
    bundle = pack(fetched, key)
    update = run("serve", "update", bundle, "--key", key.public, "--data", fetched)
    assert "nothing serves there now" in str(update.exception)
    (engine,) = fetched.glob("cache/bundles/*/engine/engine/openvino_model.bin")
    (suite,) = fetched.glob("cache/bundles/*/suites/part-v1")
    asked = UpdateRequest(engine=str(engine.parent), catalog=str(engine.parents[1]), suite=str(suite))
    updated = options_of().reread(asked)
    assert ([one.name for one in updated.engines], updated.request.spec.accuracy.suite) == ([NAME], "part-v1")


def test_a_bundle_of_an_earlier_release_changes_nothing(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, root = generate_key(), fetched / "home/r1plus/software"
    monkeypatch.setenv("XDG_DATA_HOME", str(fetched / "home"))
    write_release(root, "9.0")
    bundle = pack(fetched, key, has_software=True)
    update = run("serve", "update", bundle, "--key", key.public, "--data", fetched)
    assert "has r1plus 0.1.0, and 9.0 is installed" in str(update.exception)
    assert sorted(one.name for one in root.iterdir()) == [CURRENT, "installed"]
    assert not (fetched / "cache" / "bundles").exists()


def test_a_bundle_is_refused_by_its_signer_and_its_end(fetched: Path) -> None:
    key, other = generate_key(), generate_key()
    bundle = pack(fetched, key)
    words = ("serve", "update", bundle, "--data", fetched, "--key")
    assert "is signed by key" in str(run(*words, other.public).exception)
    bundle.write_bytes(bundle.read_bytes()[:-2000])
    assert "it is a part of a bundle" in str(run(*words, key.public).exception)
