"""`make audit` reads what pip-audit writes, and never takes silence for good news."""

import json
import stat
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import audit
from audit import CONTROL, Acceptance, Advisory, Answer, Package
from support.tables import for_each

TODAY = date(2026, 12, 2)
AIOHTTP, HTTPX, OLD = Package("aiohttp", "3.14.5"), Package("httpx", "0.28.1"), Package("numpy", "1.26.4")
VULNERABLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.14.6", "3.15.0"], "description": "…"}
ADVISORY = Advisory(AIOHTTP, "PYSEC-1", ("CVE-1",), ("3.14.6", "3.15.0"))
CONTROL_ADVISORY = Advisory(CONTROL, "PYSEC-2019-217", (), ("2.10.1",))
NOT_FOUND = "Dependency not found on PyPI and could not be audited: httpx (0.28.1)"


def write_report(*dependencies: dict[str, Any]) -> str:
    """Return pip-audit's JSON of these dependencies."""
    return json.dumps({"dependencies": dependencies, "fixes": []})


CLEAN_AIOHTTP = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
REPORTS = {
    "nothing is known": (write_report(CLEAN_AIOHTTP), Answer((), ())),
    "a vulnerability": (write_report(CLEAN_AIOHTTP | {"vulns": [VULNERABLE]}), Answer((ADVISORY,), ())),
    "a package is skipped": (write_report({"name": "aiohttp", "skip_reason": "why"}), Answer((), (AIOHTTP,), "why")),
    "a package is not mentioned": (write_report(), Answer((), (AIOHTTP,), "pip-audit left packages out")),
    "another version": (
        write_report(CLEAN_AIOHTTP | {"version": "3.14.4"}),
        Answer((), (AIOHTTP,), "pip-audit left packages out"),
    ),
}


@for_each("text, answer", REPORTS)
def test_a_report_is_read(text: str, answer: Answer) -> None:
    assert audit.parse_report(text, [AIOHTTP]) == answer


@for_each(
    "control, reason",
    {
        "is not found": (Answer((), (CONTROL,), "not found"), "not found"),
        "is said to be clean": (Answer((), ()), "the service reports no vulnerability of it"),
    },
)
def test_nothing_more_is_asked_where_the_vulnerable_control(control: Answer, reason: str) -> None:
    asked: list[Collection[Package]] = []

    def ask(packages: Collection[Package]) -> Answer:
        asked.append(packages)
        return control

    answer = audit.ask_service([HTTPX, AIOHTTP], ask)
    assert asked == [(CONTROL,)]
    assert answer.unanswered == (AIOHTTP, HTTPX) and answer.advisories == ()
    assert answer.reason == f"jinja2==2.10, which is vulnerable, was asked first: {reason}"
    assert audit.judge(answer, (), TODAY).status == audit.UNREACHABLE


def test_the_packages_are_asked_after_the_control() -> None:
    def ask(packages: Collection[Package]) -> Answer:
        return Answer((CONTROL_ADVISORY,) if CONTROL in packages else (ADVISORY,), ())

    assert audit.ask_service([AIOHTTP], ask) == Answer((ADVISORY,), ())


def accept(name: str = "PYSEC-1", package: str = "aiohttp", expires: date = TODAY) -> Acceptance:
    """Return an acceptance of `ADVISORY`, or of another."""
    return Acceptance(name, package, "not reachable", expires)


STATUSES = {
    "nothing known of any package": (Answer((), ()), (), audit.CLEAN),
    "a vulnerability": (Answer((ADVISORY,), ()), (), audit.VULNERABLE),
    "a vulnerability, and an unanswered package": (Answer((ADVISORY,), (HTTPX,), "why"), (), audit.VULNERABLE),
    "an unanswered package": (Answer((), (HTTPX,), "why"), (), audit.UNREACHABLE),
    "an accepted vulnerability": (Answer((ADVISORY,), ()), (accept(),), audit.CLEAN),
    "accepted by its CVE": (Answer((ADVISORY,), ()), (accept("CVE-1"),), audit.CLEAN),
    "accepted until yesterday": (Answer((ADVISORY,), ()), (accept(expires=date(2026, 12, 1)),), audit.VULNERABLE),
    "accepted for another package": (Answer((ADVISORY,), ()), (accept(package="httpx"),), audit.VULNERABLE),
    "another one accepted": (Answer((ADVISORY,), ()), (accept("PYSEC-2"),), audit.VULNERABLE),
    "accepted, and an unanswered package": (Answer((ADVISORY,), (HTTPX,), "why"), (accept(),), audit.UNREACHABLE),
}


@for_each("answer, acceptances, status", STATUSES)
def test_the_exit_status(answer: Answer, acceptances: tuple[Acceptance, ...], status: int) -> None:
    assert audit.judge(answer, acceptances, TODAY).status == status


def test_each_extra_has_its_lines_and_the_unanswered_are_not_called_clean() -> None:
    sets = {"extra cli": frozenset((AIOHTTP, HTTPX)), "extra engine": frozenset((OLD,)), "a lock": frozenset((HTTPX,))}
    verdict = audit.judge(Answer((ADVISORY,), (HTTPX,), NOT_FOUND), (accept("PYSEC-2"),), TODAY)
    *lines, last = audit.render_verdict(verdict, sets)
    assert lines == [
        "extra cli: 2 packages, not audited: 1, known vulnerabilities: 1",
        "  aiohttp==3.14.5: PYSEC-1, CVE-1; fixed in 3.14.6, 3.15.0",
        "extra engine: 1 packages, known vulnerabilities: 0",
        "a lock: 1 packages, not audited: 1",
        "audit.toml: PYSEC-2 of aiohttp covers nothing; remove it",
    ]
    assert last.startswith("NOT AUDITED: 1 packages. The vulnerability service (pypi.org/pypi/NAME/VERSION/json)")
    assert f" did not answer for them: {NOT_FOUND}. " in last
    assert audit.summarise(verdict, ["cli", "engine"], sets) == {
        "pip_audit": audit.PIP_AUDIT,
        "extras": 2,
        "packages": 3,
        "vulnerable": ["aiohttp==3.14.5 PYSEC-1"],
        "accepted": [],
        "unreachable": 1,
    }


def write_program(folder: Path, script: str) -> Path:
    """Return a program that does what the script says in pip-audit's place."""
    path = folder / "pip-audit"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


ENDS = {
    "a failure without a report": ("echo 'ERROR: Could not connect' >&2; exit 1", (), (AIOHTTP,), "ERROR: Could not connect"),
    "a silent failure": ("exit 1", (), (AIOHTTP,), "pip-audit exited 1"),
    "a report of a vulnerability": (
        f"echo '{write_report(CLEAN_AIOHTTP | {'vulns': [VULNERABLE]})}'; exit 1", (ADVISORY,), (), "",
    ),
}  # fmt: skip


@for_each("script, advisories, unanswered, reason", ENDS)
def test_pip_audit_ends_with(
    tmp_path: Path, script: str, advisories: tuple[Advisory, ...], unanswered: tuple[Package, ...], reason: str
) -> None:
    program = write_program(tmp_path, script)
    assert audit.ask_pip_audit(program, [AIOHTTP]) == Answer(advisories, unanswered, reason)


def test_two_versions_of_a_package_are_in_two_files() -> None:
    new = Package("numpy", "2.5.5")
    assert audit.divide([new, AIOHTTP, OLD]) == [[AIOHTTP, OLD], [new]]


def test_exports_and_locks_are_read_with_every_marker() -> None:
    text = """
# a comment
numpy==1.26.4 ; python_full_version < '3.13' and sys_platform == 'linux'
numpy==2.5.5 ; python_full_version >= '3.13'
PyYAML==6.0.4 \\
    --hash=sha256:0000 \\
    --hash=sha256:1111
    # via r1plus
httpx==0.28.1 --hash=sha256:2222
"""
    assert audit.parse_requirements(text) == {OLD, Package("numpy", "2.5.5"), Package("pyyaml", "6.0.4"), HTTPX}


def test_every_extra_is_exported_and_its_packages_are_those_of_the_lock() -> None:
    extras = audit.list_extras()
    assert {"operator", "gateway", "edge", "torch"} <= set(extras)
    assert AIOHTTP.name in {one.name for one in audit.export_extra("operator")}
    torch = audit.parse_requirements((audit.ROOT / audit.OTHER_LOCKS[0]).read_text())
    assert "torch" in {one.name for one in torch}  # Which uv.lock leaves out.


ENTRY = '[[accepted]]\nid = "PYSEC-1"\npackage = "aiohttp"\nreason = "{}"\nexpires = {}\n'


def test_the_file_of_acceptances_is_valid() -> None:
    audit.parse_acceptances(audit.ACCEPTED.read_text(), TODAY)
    entry = audit.parse_acceptances(ENTRY.format("not reachable", "2026-12-02"), TODAY)
    assert entry == (accept(),)


@for_each(
    "reason, expires, problem",
    {
        "without a reason": (" ", "2026-12-31", "reason: is empty"),
        "for more than a year": ("because", "2028-01-01", "is more than a year away"),
    },
)
def test_an_acceptance_is_refused(reason: str, expires: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"audit.toml: PYSEC-1: .*{problem}"):
        audit.parse_acceptances(ENTRY.format(reason, expires), TODAY)
