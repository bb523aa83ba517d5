"""`make quickstart`: from a clone to a first answer, as an ordinary user, with Python's standard library alone.

It installs uv where there is none, and the locked environment of the edge tier into `.venv-edge`; then `r1plus serve`
does the rest. Ctrl-C at any time leaves nothing running.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-edge"
COMMAND = ENVIRONMENT / "bin" / "r1plus"
PYTHON = (3, 11)
"""Triton's package brings its Python backend for this version."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
INTERRUPTED = 130
UNRUNNABLE = 126


class ObstacleError(Exception):
    """Why it cannot go on, and what to do."""


def main(arguments: list[str]) -> int:
    """Bring it up, or down; return the exit status."""
    version, verb, *options = arguments
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # As Ctrl-C.
    try:
        return bring_down(options) if verb == "down" else bring_up(version, options)
    except ObstacleError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing is left running", file=sys.stderr)
        return INTERRUPTED


def bring_up(uv_version: str, options: list[str]) -> int:
    """Install what is missing, and serve in the background."""
    began = time.monotonic()
    data = pick_data(options)
    if COMMAND.exists() and call("serve", "status", *data, is_silent=True) == 0:
        print("It serves already; `make quickstart-down` stops it:\n", flush=True)
        return call("serve", "status", *data)
    check_python()
    if CERTIFICATES.exists():
        os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # A company's own authority is among these.
    steps: list[dict[str, object]] = []
    with step("uv", steps):
        uv = find_uv(uv_version)
    with step("packages", steps):
        install(uv)
    environment = {**os.environ, "PATH": f"{uv.parent}:{os.environ.get('PATH', '')}"}
    serve = [str(COMMAND), "serve", "--tier", "edge", "--background", *options]
    process = subprocess.Popen(serve, env=environment)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            process.terminate()  # It says itself when all has ended.
    if code == 0:
        print(f"Ready after {time.monotonic() - began:.0f} s. `make quickstart-down` stops it.")
        print(json.dumps({"seconds": round(time.monotonic() - began, 1), "phases": [*steps, *read_steps(data)]}))
    return code


def read_steps(data: list[str]) -> list[dict[str, object]]:
    """Return the steps of `serve`: name, seconds, and seconds of a processor."""
    command = [str(COMMAND), "serve", "status", *data, "-o", "json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    names = ("name", "seconds", "processorSeconds")
    return [{name: step[name] for name in names} for step in json.loads(answer)["steps"]]


def bring_down(options: list[str]) -> int:
    """Stop what serves."""
    if not COMMAND.exists():
        print("Nothing serves: `make quickstart` has installed nothing here")
        return 0
    return call("serve", "stop", *pick_data(options))


def pick_data(options: list[str]) -> list[str]:
    """Return the option that says where the data are: the one that `status` and `stop` take, too."""
    for place, option in enumerate(options):
        if option == "--data":
            return options[place : place + 2]
        if option.startswith("--data="):
            return [option]
    return []


def call(*words: str, is_silent: bool = False) -> int:
    """Run a verb of the installed `r1plus`; return its exit status, as a shell does where it cannot be run."""
    output = subprocess.DEVNULL if is_silent else None
    try:
        return subprocess.run([str(COMMAND), *words], stdout=output, stderr=output, check=False).returncode
    except OSError as error:  # The clone was moved, or its Python is gone; `install` makes it again.
        if not is_silent:
            print(f"{COMMAND}: {error.strerror}; `make quickstart` repairs it", file=sys.stderr)
        return UNRUNNABLE


def check_python() -> None:
    """Refuse a Python that the packages are not for, or that cannot make environments."""
    if sys.version_info[:2] != PYTHON:
        wanted, found = ".".join(map(str, PYTHON)), ".".join(map(str, sys.version_info[:2]))
        raise ObstacleError(f"python3 is version {found}, and Triton's package needs {wanted}; Debian 12 has it")
    if not os.access(ROOT, os.W_OK):
        raise ObstacleError(f"{ROOT}: you may not write there; make a clone of your own")


def find_uv(version: str) -> Path:
    """Return uv, which installs the locked packages: from the PATH, or installed into the cache."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path.home() / ".local" / "bin"))
    if found:
        return Path(found)
    folder = find_cache() / f"uv-{version}"
    program = folder / "bin" / "uv"
    if not program.exists():
        run([sys.executable, "-m", "venv", str(folder)], "python3 cannot make environments; install python3-venv")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, f"uv=={version}"], "PyPI is not reached, or has no such version; see above")
    return program


def find_cache() -> Path:
    """Return the cache's folder, as `r1plus serve` does."""
    if os.environ.get("R1PLUS_CACHE"):
        return Path(os.environ["R1PLUS_CACHE"])
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "r1plus"


def install(uv: Path) -> None:
    """Make the environment what the lock says: with the extra `edge`, and nothing else."""
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT), "UV_PYTHON_DOWNLOADS": "never"}
    extras = ["--locked", "--no-default-groups", "--extra", "edge"]
    command = [str(uv), "sync", "--quiet", *extras, "--python", sys.executable, "--project", str(ROOT)]
    run(command, "the packages cannot be installed; see above", environment)


def run(command: list[str], problem: str, environment: dict[str, str] | None = None) -> None:
    """Run a command; its errors go where ours do."""
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise ObstacleError(problem)


@contextmanager
def step(name: str, steps: list[dict[str, object]]) -> Iterator[None]:
    """Tell a step and its time when the block ends, as `r1plus serve` tells its own; add it to the steps."""
    began, used = time.monotonic(), measure_children()
    yield
    seconds = time.monotonic() - began
    print(f"{seconds:7.1f} s  {name:<9} installed", flush=True)
    used = measure_children() - used
    steps.append({"name": name, "seconds": round(seconds, 1), "processorSeconds": round(used, 1)})


def measure_children() -> float:
    """Return the processor seconds of what has been run."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
