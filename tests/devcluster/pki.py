"""The cluster's certificate authority: every component and every test user gets a real certificate of its own."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster.shell import output

DAYS = "3650"
_CURVE = "ec_paramgen_curve:prime256v1"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a certificate and its private key, in PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a folder; made on first use, and used again by later runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def certificate(self) -> Path:
        """What clients and servers of this cluster trust."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The authority's private key."""
        return self.folder / "ca.key"

    def ensure(self) -> None:
        """Make the authority and the key that signs service-account tokens, unless they are there."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.certificate.exists():
            _openssl(
                "req",
                "-x509",
                *_new_key(self.key),
                "-subj",
                "/CN=r1plus-devcluster",
                "-days",
                DAYS,
                "-out",
                self.certificate,
            )
        if not self.service_account_key.exists():
            _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", _CURVE, "-out", self.service_account_key)
            _openssl("pkey", "-in", self.service_account_key, "-pubout", "-out", self.service_account_public_key)

    @property
    def service_account_key(self) -> Path:
        """Signs service-account tokens."""
        return self.folder / "service-account.key"

    @property
    def service_account_public_key(self) -> Path:
        """Verifies service-account tokens."""
        return self.folder / "service-account.pub"

    def issue(self, name: str, user: str, groups: Iterable[str] = (), hosts: Iterable[str] = ()) -> Certificate:
        """A certificate for `user` in `groups` (client) and, when `hosts` are given, for a server with those names."""
        made = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if made.certificate.exists():
            return made
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            request, signed = Path(scratch) / "csr", Path(scratch) / "crt"
            extensions = Path(scratch) / "extensions"
            extensions.write_text(_extensions(list(hosts)))
            _openssl("req", *_new_key(made.key), "-subj", subject, "-out", request)
            _openssl(
                *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key),
                *("-set_serial", f"0x{os.urandom(8).hex()}", "-days", DAYS, "-extfile", extensions, "-out", signed),
            )
            signed.replace(made.certificate)
        return made


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", _CURVE, "-nodes", "-keyout", path)


def _extensions(hosts: list[str]) -> str:
    lines = ["keyUsage=digitalSignature,keyEncipherment", "extendedKeyUsage=clientAuth,serverAuth"]
    if hosts:
        lines.append("subjectAltName=" + ",".join(f"{_kind(host)}:{host}" for host in hosts))
    return "\n".join(lines) + "\n"


def _kind(host: str) -> str:
    return "IP" if host.replace(".", "").isdigit() else "DNS"


def _openssl(*words: str | Path) -> None:
    output(["openssl", *words])
