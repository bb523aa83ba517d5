"""`install.pyz`: from a bundle to an installed r1plus, on a machine without a network, as an ordinary user.

It is what lies beside a bundle: a file with this module, the reader of bundles and the contract. It verifies the bundle
with a key that its user has from elsewhere, makes an environment of the wheels in it, and lets the r1plus in there do
the rest. Standard library only.
"""

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from r1plus_contract.atomic_files import replace_link
from r1plus_contract.suites.suite_files import key_id
from r1plus_edge.base_folders import find_data_home
from r1plus_edge.bundle.archive import Bundle, check_room, open_bundle
from r1plus_edge.bundle.keys import add_key, find_keys_file, load_keys
from r1plus_edge.bundle.manifest import Part
from r1plus_edge.errors import EdgeError

COMPLETE: Final = ".complete"
"""In an environment that was installed to its end."""
CURRENT: Final = "current"
"""Link to the environment that was installed last."""
NAME_DIGITS: Final = 16
GROWTH: Final = 4
"""Bytes of an environment to those of its wheels, which are there at the same time."""
ALLOW_OLDER: Final = "--allow-older"
INTERRUPTED: Final = 130
_MOST_ERROR: Final = 1500
_VERSION: Final = re.compile(
    r"(?:(?P<epoch>[0-9]{1,9})!)?(?P<release>[0-9]{1,9}(?:\.[0-9]{1,9})*)(?:(?P<stage>a|b|rc)(?P<number>[0-9]{1,9}))?"
    r"(?:\.post(?P<post>[0-9]{1,9}))?(?:\.dev(?P<dev>[0-9]{1,9}))?(?:\+.*)?"
)
"""A version as wheels and their folders have it, normalized."""


def find_software_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the environments that come of bundles."""
    return find_data_home(environ) / "r1plus" / "software"


def find_environment(bundle: Bundle, root: Path) -> Path:
    """Return the folder that the software of a bundle has, or gets."""
    return root / bundle.digest[:NAME_DIGITS]


def check_age(bundle: Bundle, current: Path) -> None:
    """Refuse a bundle whose software is older than that of an environment: its signature stays valid for ever.

    Raises:
        EdgeError: it is of an earlier release. Two builds of one release cannot be told apart.
    """
    own, version = bundle.manifest.software, read_version(current)
    if Part.WHEELS in bundle.parts and _parse_release(own) < _parse_release(version):
        raise EdgeError(
            f"{bundle.path}: has r1plus {own}, and {version} is installed in {current}; an older release lacks what was"
            f" mended since. Take a newer bundle, or give {ALLOW_OLDER} if you want this one"
        )


def read_version(environment: Path) -> str:
    """Return the version of r1plus in an environment; empty: it has none."""
    info = next(environment.glob("lib/python*/site-packages/r1plus-*.dist-info"), None)
    return info.name.removeprefix("r1plus-").removesuffix(".dist-info") if info is not None else ""


def _parse_release(version: str) -> tuple[Any, ...]:
    """Return what orders releases as PEP 440 does; what is no version is before all.

    A local part (+x) is another build. Packages that do this are not here yet: they are in the bundle.
    """
    parts = _VERSION.fullmatch(version)
    if parts is None:
        return ()
    release = [int(number) for number in parts["release"].split(".")]
    while release and release[-1] == 0:
        release.pop()
    is_dev, is_post = parts["dev"] is not None, parts["post"] is not None
    stage = parts["stage"] or ("" if is_dev and not is_post else "release")  # Sorts as a, b, rc and "" do.
    return (
        int(parts["epoch"] or 0),
        release,
        (stage, int(parts["number"] or 0)),
        int(parts["post"]) if is_post else -1,
        (not is_dev, int(parts["dev"] or 0)),
    )


def install_software(bundle: Bundle, root: Path, python: str = sys.executable) -> Path:
    """Return the environment with the wheels of a bundle, made at its first call; nothing is asked of a network.

    One that was interrupted is made again. `CURRENT` is not touched. Everybody may read it, as the user of a service
    whose software is root's, and its owner alone may change it, whatever the umask.

    Raises:
        EdgeError: the bundle has no wheels, or they cannot be installed.
    """
    environment = find_environment(bundle, root)
    mask = os.umask(0o022)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (environment / COMPLETE).exists():
                _make_environment(bundle, environment, python)
    except OSError as error:
        raise EdgeError(
            f"{environment}: cannot be written: {error.strerror}; name a folder in XDG_DATA_HOME"
        ) from error
    finally:
        os.umask(mask)
    return environment


def switch_current(root: Path, environment: Path) -> Path:
    """Let the link `CURRENT` name an environment, in one step; return the link."""
    link = root / CURRENT
    replace_link(link, environment.name)
    return link


def _make_environment(bundle: Bundle, environment: Path, python: str) -> None:
    wheels = environment.with_name(f".{environment.name}-wheels")
    for remainder in (environment, wheels):
        shutil.rmtree(remainder, ignore_errors=True)
    check_room(environment.parent, bundle.manifest.count_bytes(Part.WHEELS) * GROWTH)
    try:
        bundle.extract(Part.WHEELS, wheels)
        # -I: without it, modules in the current folder, such as that of the medium, would replace Python's own.
        make = [python, "-I", "-m", "venv", str(environment)]
        _run(make, "this Python makes no environments; install Debian's python3-venv")
        files = sorted(map(str, wheels.glob("*.whl")))
        strict = ["--isolated", "--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
        pip = [str(environment / "bin" / "python"), "-I", "-m", "pip", "install", *strict]
        _run([*pip, *files], "the wheels of the bundle are for another machine, or the disk is full")
        os.sync()  # What is marked as complete survives a power cut.
        (environment / COMPLETE).touch()
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def _run(command: Sequence[str], problem: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    result = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode != 0:
        raise EdgeError(f"{problem}: {result.stdout.strip()[-_MOST_ERROR:]}")


def main(arguments: Sequence[str]) -> int:
    """Install, and start what was installed. Return the exit status."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    own, options = arguments[:end], arguments[end + 1 :]
    parser = argparse.ArgumentParser(
        prog="install.pyz",
        description="Install r1plus from a bundle, without a network, and serve.",
        epilog="What follows `--` are options of `r1plus serve`, such as --data FOLDER.",
    )
    parser.add_argument("bundle", type=Path, help="the file that `r1plus edge bundle` wrote")
    parser.add_argument(
        "--key", default="", help="public key of who made it, as you got it from them: not with the bundle"
    )
    parser.add_argument("--no-start", action="store_true", help="install only")
    parser.add_argument(ALLOW_OLDER, action="store_true", help="also over a newer r1plus")
    given = parser.parse_args(own)
    os.umask(os.umask(0o077) | 0o022)  # What runs out of these folders is for nobody else to change.
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # As Ctrl-C.
    try:
        return _install(given, options)
    except EdgeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\nInterrupted; nothing is left running", file=sys.stderr)
        return INTERRUPTED


def _install(given: argparse.Namespace, options: Sequence[str]) -> int:
    path: Path = given.bundle
    keys_file, root = find_keys_file(), find_software_root()
    trust = (given.key,) if given.key else load_keys(keys_file)
    with _tell_step("bundle") as step:
        bundle = open_bundle(path, trust)
        if not given.allow_older:
            check_age(bundle, root / CURRENT)
        step.append(f"all {len(bundle.manifest.files)} files verified, signed by key {key_id(bundle.signer)}")
    with _tell_step("software") as step:
        environment = install_software(bundle, root)
        step.append(f"r1plus {bundle.manifest.software} in {environment}")
    switch_current(root, environment)
    add_key(keys_file, bundle.signer)
    command = [str(environment / "bin" / "r1plus"), "edge", "install", str(path.absolute()), "--key", bundle.signer]
    command += ["--no-start"] * given.no_start + ["--", *options] * bool(options)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # It says itself when all has ended.


@contextmanager
def _tell_step(name: str) -> Iterator[list[str]]:
    """Tell a step and its time when the block ends, as `r1plus serve` tells its own; the block adds the detail."""
    began, detail = time.monotonic(), list[str]()
    yield detail
    print(f"{time.monotonic() - began:7.1f} s  {name:<9} {' '.join(detail)}", flush=True)
