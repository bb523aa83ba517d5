"""How a serving pod starts its Triton: by the script itself, with a stand-in that says what it was started with.

On the real server: tests/engine/test_guarded.py, test_lost_engine.py.
"""

import os
import subprocess
from pathlib import Path

import pytest

from r1plus_operator.plan.podspec.triton_args import GUARD_OPTIONS, KEY, START, build_command
from support.kubelet import expand

IN_A_CONTAINER = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-ec")
"""Starts a script as the first process of a PID namespace, as a container runtime does."""
SHARED_MEMORY = """\
mount -t tmpfs tmpfs /dev/shm
touch /dev/shm/region
mkdir /dev/shm/busy
mount -t tmpfs tmpfs /dev/shm/busy
exec "$@"
"""
"""Of a container that was killed; one entry cannot be removed."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """In the place of tritonserver."""
    path = tmp_path / "tritonserver"
    path.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\necho "AIP_MODE=${AIP_MODE-none}"\necho "$$" >&2\n')
    path.chmod(0o755)
    return path


def started(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(["/bin/bash", "-ec", START, *words], env=own, capture_output=True, text=True, timeout=60)


def test_options_pass_as_they_are_and_the_restrictions_come_last(program: Path) -> None:
    ran = started(str(program), "--a=b c", "--d", "", AIP_MODE="PREDICTION")
    *options, http, grpc, mode = ran.stdout.split("\n")[:-1]
    assert options == ["--a=b c", "--d", ""]
    apis, _, key = http.removeprefix("--http-restricted-api=").partition(":")
    assert {"model-repository", "shared-memory", "logging"} <= set(apis.split(","))
    assert not {"health", "inference"} & set(apis.split(","))
    assert key.startswith(f"{KEY}=")
    assert grpc == http.replace("--http-restricted-api", "--grpc-restricted-protocol")
    assert mode == "AIP_MODE=none"


def test_each_start_makes_a_key_of_its_own(program: Path) -> None:
    keys = {started(str(program)).stdout.split("\n")[0].rpartition("=")[2] for _ in range(3)}
    assert len(keys) == 3
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


def test_triton_takes_the_shells_place(program: Path) -> None:
    """Where it is not the first process of a container: the process that started it can end it by its id."""
    process = subprocess.Popen(
        ["/bin/bash", "-ec", START, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, said = process.communicate(timeout=60)
    assert int(said) == process.pid


def test_the_kubelet_passes_the_script_as_it_is() -> None:
    assert expand(START, {}) == START


def test_the_shell_of_a_container_stays_and_what_cannot_be_removed_stops_no_start(program: Path) -> None:
    program.write_text("#!/bin/bash\necho $$ $PPID /dev/shm/*\nexit 7\n")
    command = [*IN_A_CONTAINER, SHARED_MEMORY, "bash", "/bin/bash", "-ec", expand(START, {}), str(program)]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    pid, parent, *entries = ran.stdout.split()
    assert (pid != "1", parent, entries, ran.returncode) == (True, "1", ["/dev/shm/busy"], 7), ran.stderr


def test_without_randomness_nothing_starts(program: Path, tmp_path: Path) -> None:
    """An image without od."""
    few = tmp_path / "bin"
    few.mkdir()
    (few / "head").symlink_to("/usr/bin/head")
    (few / "tr").symlink_to("/usr/bin/tr")
    ran = started(str(program), PATH=str(few))
    assert (ran.returncode, ran.stdout) == (1, "there is no randomness for the key of Triton's restricted APIs\n")


def test_the_template_holds_no_key() -> None:
    """The kubelet replaces $(NAME) in what it starts where a variable has that name, and leaves the rest as it is."""
    for through in (True, False):
        container = build_command(through_entry_point=through)
        words = [*container.get("command", []), *container["args"]]
        assert words[:2] == ["/bin/bash", "-ec"]
        assert (words[2], words[3]) == (START, "tritonserver")
        assert set(GUARD_OPTIONS) < set(words[4:])
        assert not any("restricted" in word for word in words[4:])
        assert ("command" in container) is not through


def test_loading_tracing_caching_and_verbose_logs_are_not_asked_for() -> None:
    words = build_command(through_entry_point=False)["args"]
    assert {"--model-control-mode=none", "--log-verbose=0"} <= set(words)
    assert not any(word.startswith(("--trace", "--cache", "--response-cache", "--load-model")) for word in words)
