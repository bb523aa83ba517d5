"""Where a release is pushed to, and the command that installs it from there."""

import re
from dataclasses import dataclass
from pathlib import Path

from r1plus_cli.bundle.release import CHART_REPOSITORY, ReleaseLock
from r1plus_cli.errors import UsageError

_TARGET = re.compile(r"(?P<host>[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*(:[0-9]{1,5})?)(?P<path>(/[a-z0-9]+([._-][a-z0-9]+)*)*)")
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class PushTarget:
    """Registry and path to push below."""

    host: str
    """Host with port, such as registry.bank.example:5000."""
    path: str = ""
    """Path before all repositories, without slashes at its ends."""

    @property
    def prefix(self) -> str:
        """The value images.prefix of the chart."""
        return f"{self.host}/{self.path}" if self.path else self.host

    def name_repository(self, repository: str) -> str:
        """Return the full name of a repository on the registry."""
        return f"{self.path}/{repository}" if self.path else repository


def parse_target(to: str) -> PushTarget:
    """Return registry and path of --to. Raise UsageError if it is not HOST[:PORT][/PATH]."""
    match = _TARGET.fullmatch(to.rstrip("/"))
    if match is None:
        raise UsageError(f"--to: {to!r:.120} is not HOST[:PORT][/PATH], in small letters and without https://")
    if match["host"] in _HUB:
        raise UsageError("--to: Docker Hub takes one level of names, and the chart has two; use another registry")
    return PushTarget(match["host"], match["path"].strip("/"))


def build_install_line(lock: ReleaseLock, target: PushTarget, values: Path | None, is_plain: bool) -> str:
    """Return the command that installs the chart from where it was pushed."""
    chart = f"oci://{target.host}/{target.name_repository(CHART_REPOSITORY)}"
    given = f"-f {values}" if values is not None else f"--set images.prefix={target.prefix}"
    plain = " --plain-http" if is_plain else ""
    namespace = "-n r1plus-system --create-namespace"
    return f"helm install r1plus {chart} --version {lock.chart.tag} {namespace} {given}{plain} --wait"
