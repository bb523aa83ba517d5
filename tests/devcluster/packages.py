"""Debian packages that the embedded cluster and its images need, installed once and without starting any service."""

import os
import shutil
from collections.abc import Iterator
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

STEP_COUNT = 1
_POLICY = Path("/usr/sbin/policy-rc.d")
_STATUS_FILES = Path("/var/lib/dpkg/info")


def missing_packages(installed: Path = _STATUS_FILES) -> list[str]:
    """Packages of the table that dpkg has no file list for; a look at files, so that a warm start costs nothing."""
    return [
        name
        for name in PACKAGES
        if not any((installed / f"{name}{suffix}.list").exists() for suffix in ("", ":amd64", ":arm64"))
    ]


def install(steps: Steps) -> None:
    """Install what is missing. Called by `build`; needs root and Debian, and says so when it can't."""
    log = log_dir() / "debian-packages.log"
    with steps.step("Debian packages", log=log) as step:
        if not missing_packages():
            step.cached()
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            names = " ".join(missing_packages())
            raise SystemExit(f"The embedded cluster needs Debian packages and root; install as root: {names}")
        step.progress(" ".join(missing_packages()))
        with locked("debian-packages"), _no_service_starts():
            _apt_install(log)
        step.built()


def _apt_install(log: Path) -> None:
    missing = missing_packages()
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
