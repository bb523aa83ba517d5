"""`make audit`: pip-audit over what uv.lock has of each extra, and over the locks of packages that uv.lock leaves out.

pip-audit has an environment of its own in the cache, at one version: it is no dependency of the project's. The last line
is JSON. Exit status: 0 nothing is known, 1 a package is vulnerable, 3 not every package was answered for.
pip-audit reports "No known vulnerabilities" where the service knows no package at all, so a vulnerable one is asked first.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from devcluster.cache import log_dir
from devcluster.shell import output
from devcluster.steps import Steps
from devcluster.toolchain import install_tool, uv

ROOT = Path(__file__).parents[1]
PIP_AUDIT = "2.10.1"
ACCEPTED = ROOT / "tests" / "audit.toml"
OTHER_LOCKS = ("tests/support/model/requirements.lock", "tests/support/exports/requirements.lock")
"""Of the packages that extras name and uv.lock leaves out, such as torch."""
CLEAN, VULNERABLE, UNREACHABLE = 0, 1, 3
LONGEST_ACCEPTANCE = timedelta(days=366)
TIMEOUT_S = 900


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One version of a package, as PyPI names it."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


CONTROL = Package("jinja2", "2.10")
"""Has had known vulnerabilities since 2019: a service that reports none of it reports none of anything."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """A known vulnerability of one version of a package."""

    package: Package
    id: str
    aliases: tuple[str, ...]
    fixes: tuple[str, ...]

    def __str__(self) -> str:
        fixes = f"fixed in {', '.join(self.fixes)}" if self.fixes else "no release has a fix"
        return f"{self.package}: {', '.join((self.id, *self.aliases))}; {fixes}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service reports of some packages."""

    advisories: tuple[Advisory, ...]
    unanswered: tuple[Package, ...]
    reason: str = ""
    """Why packages are unanswered; empty: none is."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An entry of audit.toml."""

    id: str
    package: str
    reason: str
    expires: date

    def covers(self, advisory: Advisory, today: date) -> bool:
        """Return whether it is about this advisory and has not expired."""
        names = (advisory.id, *advisory.aliases)
        return self.id in names and canonicalize_name(self.package) == advisory.package.name and today <= self.expires


@dataclass(frozen=True, slots=True)
class Verdict:
    """The advisories, with those that are accepted apart, and the packages that nothing is known about."""

    vulnerable: tuple[Advisory, ...]
    accepted: tuple[Advisory, ...]
    unused: tuple[Acceptance, ...]
    """Acceptances that cover nothing: expired, or no longer reported."""
    unanswered: tuple[Package, ...]
    reason: str

    @property
    def status(self) -> int:
        """Exit status of the command."""
        if self.vulnerable:
            return VULNERABLE
        return UNREACHABLE if self.unanswered else CLEAN


Ask = Callable[[Collection[Package]], Answer]


def parse_requirements(text: str) -> frozenset[Package]:
    """Return the packages of `uv export` or of a lock with hashes, whatever their markers."""
    lines = (line.split(" --hash")[0].rstrip(" \\") for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line))
    found = [Requirement(line) for line in lines]
    return frozenset(Package(canonicalize_name(one.name), str(one.specifier).removeprefix("==")) for one in found)


def list_extras() -> list[str]:
    """Return the names of the project's extras."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def export_extra(extra: str) -> frozenset[Package]:
    """Return what uv.lock has for an extra."""
    command = [uv(), "export", "--quiet", "--frozen", "--no-emit-project", "--no-default-groups", "--extra", extra]
    return parse_requirements(output([*command, "--no-hashes", "--no-annotate", "--no-header"], cwd=ROOT))


def parse_report(text: str, asked: Collection[Package]) -> Answer:
    """Return what pip-audit's JSON says; a package that it skipped, or does not mention, is unanswered."""
    advisories, answered, reason = [], set(), ""
    for one in json.loads(text)["dependencies"]:
        if "skip_reason" in one:
            reason = reason or str(one["skip_reason"])
            continue
        package = Package(canonicalize_name(one["name"]), one["version"])
        answered.add(package)
        advisories += [_parse_advisory(package, fields) for fields in one["vulns"]]
    unanswered = tuple(sorted(set(asked) - answered))
    return Answer(tuple(advisories), unanswered, (reason or "pip-audit left packages out") if unanswered else "")


def _parse_advisory(package: Package, fields: Mapping[str, Any]) -> Advisory:
    return Advisory(package, fields["id"], tuple(fields["aliases"]), tuple(fields["fix_versions"]))


def parse_acceptances(text: str, today: date) -> tuple[Acceptance, ...]:
    """Return the entries of audit.toml. Raises ValueError: one has no reason, or runs for more than a year."""
    entries = tuple(Acceptance(**fields) for fields in tomllib.loads(text).get("accepted", []))
    for one in entries:
        if not one.reason.strip():
            raise ValueError(f"{ACCEPTED.name}: {one.id}: reason: is empty; write why it does not matter here")
        if one.expires - today > LONGEST_ACCEPTANCE:
            raise ValueError(f"{ACCEPTED.name}: {one.id}: expires: {one.expires}: is more than a year away")
    return entries


def ask_service(packages: Collection[Package], ask: Ask) -> Answer:
    """Return what the service reports of the packages, after it has reported what is known of `CONTROL`."""
    control = ask((CONTROL,))
    if not control.advisories:
        reason = control.reason or "the service reports no vulnerability of it"
        return Answer((), tuple(sorted(packages)), f"{CONTROL}, which is vulnerable, was asked first: {reason}")
    return ask(packages)


def judge(answer: Answer, acceptances: Iterable[Acceptance], today: date) -> Verdict:
    """Return the advisories, divided by whether they are accepted today."""
    entries = tuple(acceptances)
    accepted = [one for one in answer.advisories if any(entry.covers(one, today) for entry in entries)]
    vulnerable = [one for one in answer.advisories if one not in accepted]
    unused = [entry for entry in entries if not any(entry.covers(one, today) for one in answer.advisories)]
    return Verdict(tuple(vulnerable), tuple(accepted), tuple(unused), answer.unanswered, answer.reason)


def render_verdict(verdict: Verdict, sets: Mapping[str, frozenset[Package]]) -> list[str]:
    """Return a line for each set of packages with those below it that are vulnerable, and what else is to be done."""
    lines = []
    for name, packages in sets.items():
        own = [one for one in verdict.vulnerable if one.package in packages]
        unknown = len(packages & set(verdict.unanswered))
        counts = [f"{len(packages)} packages"]
        counts += [f"not audited: {unknown}"] if unknown else []
        counts += [f"known vulnerabilities: {len(own)}"] if own or not unknown else []  # No 0 where nobody answered.
        lines.append(f"{name}: {', '.join(counts)}")
        lines += [f"  {one}" for one in own]
    lines += [f"accepted: {one}" for one in verdict.accepted]
    lines += [f"{ACCEPTED.name}: {one.id} of {one.package} covers nothing; remove it" for one in verdict.unused]
    if verdict.unanswered:
        lines.append(
            f"NOT AUDITED: {len(verdict.unanswered)} packages. The vulnerability service (pypi.org/pypi/NAME/VERSION/json)"
            f" did not answer for them: {verdict.reason}. Run it where that address can be reached."
        )
    return lines


def summarise(verdict: Verdict, extras: Collection[str], sets: Mapping[str, frozenset[Package]]) -> dict[str, Any]:
    """Return the JSON line. `unreachable` counts the packages that nothing is known about."""
    return {
        "pip_audit": PIP_AUDIT,
        "extras": len(extras),
        "packages": len(frozenset().union(*sets.values())),
        "vulnerable": sorted({f"{one.package} {one.id}" for one in verdict.vulnerable}),
        "accepted": sorted({f"{one.package} {one.id}" for one in verdict.accepted}),
        "unreachable": len(verdict.unanswered),
    }


def divide(packages: Iterable[Package]) -> list[list[Package]]:
    """Return the packages in as few lists as have no package in two versions: pip-audit refuses those in a file."""
    lists: list[dict[str, Package]] = []
    for one in sorted(packages):
        free = next((names for names in lists if one.name not in names), None)
        if free is None:
            lists.append(free := {})
        free[one.name] = one
    return [list(names.values()) for names in lists]


def ask_pip_audit(program: Path, packages: Collection[Package]) -> Answer:
    """Return what pip-audit reports of the packages; where it ends without a report, nothing is answered."""
    answers = [_ask_once(program, part) for part in divide(packages)]
    return Answer(
        tuple(advisory for one in answers for advisory in one.advisories),
        tuple(package for one in answers for package in one.unanswered),
        next((one.reason for one in answers if one.reason), ""),
    )


def _ask_once(program: Path, packages: list[Package]) -> Answer:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "requirements.txt"
        file.write_text("".join(f"{one}\n" for one in packages))
        command = [
            str(program),
            "--disable-pip",
            "--no-deps",
            "--format=json",
            "--progress-spinner=off",
            "-r",
            str(file),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    try:
        return parse_report(ended.stdout, packages)
    except json.JSONDecodeError:
        words = ended.stderr.strip().splitlines() or [f"pip-audit exited {ended.returncode}"]
        return Answer((), tuple(packages), words[-1])


def main() -> int:
    """Export, ask, print."""
    steps, today = Steps(3), datetime.now(UTC).date()
    acceptances = parse_acceptances(ACCEPTED.read_text(), today)
    with steps.step(f"pip-audit {PIP_AUDIT}", log_dir() / "pip-audit.log"):
        program = install_tool("pip-audit", PIP_AUDIT)
    extras = list_extras()
    with steps.step(f"{len(extras)} extras exported"):
        sets = {f"extra {extra}": export_extra(extra) for extra in extras}
        sets |= {lock: parse_requirements((ROOT / lock).read_text()) for lock in OTHER_LOCKS}
    with steps.step("Vulnerabilities asked for"):
        packages = frozenset().union(*sets.values())
        answer = ask_service(packages, lambda some: ask_pip_audit(program, some))
    verdict = judge(answer, acceptances, today)
    print("\n".join(render_verdict(verdict, sets)))
    print(json.dumps(summarise(verdict, extras, sets)))
    return verdict.status


if __name__ == "__main__":
    sys.exit(main())
