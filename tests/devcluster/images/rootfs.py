"""The Debian file systems that images start from: a small one with Python, and one with the packet-filter tools.

Made by mmdebstrap from Debian's own packages, and the same packages make the same bytes. Documentation but the licences,
translations and package lists stay out, and no program keeps a set-user-id bit: nothing in these images may gain rights.
"""

import os
from functools import partial
from pathlib import Path

from devcluster.images.recipe import Recipe
from devcluster.shell import run

SUITE = "bookworm"
PYTHON_PACKAGES: tuple[str, ...] = (
    "ca-certificates",
    "libpython3.11",
    "libpython3.11-stdlib",
    "python3-minimal",
    "python3.11-minimal",
)
POSTGRESQL_PACKAGES: tuple[str, ...] = ("postgresql-15",)
PACKET_FILTER_PACKAGES: tuple[str, ...] = ("ca-certificates", "ipset", "iproute2", "iptables", "kmod")

_LEFT_OUT: tuple[str, ...] = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/python3.11/lib2to3/*",
    "/usr/lib/python3.11/pydoc_data/*",
)
_LIBRARY = "/usr/lib/python3.11"
_KEPT: tuple[str, ...] = ("/usr/share/doc/*/copyright",)
_CLEANUP: tuple[str, ...] = (
    'rm -rf "$1"/var/cache/debconf/*-old "$1"/var/cache/ldconfig/aux-cache "$1"/var/log/*',
    'rm -f "$1"/etc/hostname "$1"/etc/resolv.conf',
    # Files bear no times, so compiled ones must not be compared with those of their sources.
    f'[ ! -d "$1"{_LIBRARY} ] || chroot "$1" python3.11 -m compileall -qf --invalidation-mode unchecked-hash {_LIBRARY}',
    'find "$1" -xdev -type f -perm /6000 -exec chmod ug-s {} +',
)
_CONTAINERFILE = 'FROM scratch\nADD rootfs.tar /\nCMD ["/bin/sh"]\n'


def base() -> Recipe:
    """Debian with Python 3.11: under the project's own images, the engines and Alertmanager."""
    return _recipe("base", PYTHON_PACKAGES)


def packet_filter() -> Recipe:
    """Debian with iptables and ipset: under kube-router, which drives them."""
    return _recipe("base-packet-filter", PACKET_FILTER_PACKAGES)


def postgresql() -> Recipe:
    """Debian with PostgreSQL: a database for tests, which the demo does not need."""
    return _recipe("base-postgresql", POSTGRESQL_PACKAGES)


def _recipe(name: str, packages: tuple[str, ...]) -> Recipe:
    ingredients = (SUITE, *packages, *_LEFT_OUT, *_KEPT, *_CLEANUP)
    return Recipe(name, _CONTAINERFILE, ingredients, partial(_bootstrap, packages), layers_serve_again=True)


def _bootstrap(packages: tuple[str, ...], context: Path, log: Path) -> None:
    """`usr-is-merged` keeps the transition package and the whole of Perl out of the file system."""
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=tar",
            '--aptopt=APT::Install-Recommends "false"',
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            f"--include={','.join(('usr-is-merged', *packages))}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
            *(f"--dpkgopt=path-include={pattern}" for pattern in _KEPT),
            *(f"--customize-hook={command}" for command in _CLEANUP),
            SUITE,
            context / "rootfs.tar",
        ],
        log=log,
        env=os.environ | {"SOURCE_DATE_EPOCH": "0"},
    )
