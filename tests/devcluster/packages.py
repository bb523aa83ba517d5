"""Debian packages that the embedded cluster and its images need, installed once and without starting any service."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devcluster.cache import locked, log_dir
from devcluster.shell import run
from devcluster.steps import Steps

PACKAGES: tuple[str, ...] = (
    "buildah",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "gcc",
    "git",
    "iproute2",
    "ipset",
    "iptables",
    "kmod",
    "libc6-dev",
    "mmdebstrap",
    "nftables",
    "openssl",
    "prometheus-alertmanager",
    "runc",
    "util-linux",
)

POSTGRESQL: tuple[str, ...] = ("postgresql",)
"""What the registry's tests need; the cluster does not."""
CHROMIUM: tuple[str, ...] = ("chromium", "fonts-dejavu-core")
"""What the tests of the gateway's page need."""
STEP_COUNT = 1
_POLICY = Path("/usr/sbin/policy-rc.d")
_STATUS_FILES = Path("/var/lib/dpkg/info")


def missing_packages(installed: Path = _STATUS_FILES, wanted: Sequence[str] = PACKAGES) -> list[str]:
    """Packages of `wanted` that dpkg has no file list for; a look at files, so that a warm start costs nothing."""
    return [
        name
        for name in wanted
        if not any((installed / f"{name}{suffix}.list").exists() for suffix in ("", ":amd64", ":arm64"))
    ]


def install(steps: Steps, wanted: Sequence[str] = PACKAGES) -> None:
    """Install what is missing. Called by `build` and by tests; needs root and Debian, and says so when it can't."""
    log = log_dir() / "debian-packages.log"
    with steps.step("Debian packages", log=log) as step:
        if not missing_packages(wanted=wanted):
            step.cached()
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            names = " ".join(missing_packages(wanted=wanted))
            raise SystemExit(f"Debian packages are missing, and root to install them; as root: apt-get install {names}")
        step.progress(" ".join(missing_packages(wanted=wanted)))
        with locked("debian-packages"), _no_service_starts():
            _apt_install(wanted, log)
        step.built()


def _apt_install(wanted: Sequence[str], log: Path) -> None:
    missing = missing_packages(wanted=wanted)
    if not missing:
        return
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    wait = "DPkg::Lock::Timeout=600"
    run(["apt-get", "-o", wait, "update", "-q"], log=log, env=env)
    run(["apt-get", "-o", wait, "install", "-q", "-y", "--no-install-recommends", *missing], log=log, env=env)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep containerd's and Alertmanager's packages from starting daemons of their own on the host."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
