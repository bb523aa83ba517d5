"""What the operator mounted: settings, suite and known verdicts. Polled by the prober; it asks nobody else.

A ConfigMap changes by a swap of its `..data` link, so a fingerprint taken before and after reading tells whether the
files belong together.
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.identity import ServingIdentity
from r1plus_contract.jsonable import ContractError, camel, loads
from r1plus_contract.settings import (
    FORMER_ITEMS_FILE,
    FORMER_REFERENCE_FILE,
    FORMER_SUITE_FILE,
    ITEMS_FILE,
    REFERENCE_FILE,
    SETTINGS_FILE,
    SUITE_FILE,
    VERDICTS_FILE,
    KnownVerdicts,
    MonitorSettings,
    hash_config,
)
from r1plus_contract.suite import Suite, SuiteError, load_suite
from r1plus_contract.suite_reference import read_reference
from r1plus_monitoring.scoring.replay import replay
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import bets

SuiteFiles = tuple[str, str, str]
"""Header, items, recorded answers."""
NAMED: Final = (SUITE_FILE, ITEMS_FILE, REFERENCE_FILE)
FORMER: Final = (FORMER_SUITE_FILE, FORMER_ITEMS_FILE, FORMER_REFERENCE_FILE)
FILES: Final = (SETTINGS_FILE, VERDICTS_FILE, *NAMED, *FORMER)
IDENTITY_FILE: Final = "identity.json"
SUITE_MISMATCH: Final = "SuiteMismatch"
"""Reason: recorded answers do not get their recorded scores, or are not those that the operator has taken."""
MOST_TOLD: Final = 3

Fingerprint = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why nothing can be scored; becomes the report's reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A suite that is asked beside the one that counts, or why it cannot be."""

    name: str
    suite_hash: str
    suite: Suite | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """One consistent reading. Where `problem` is set, `suite` must not be used."""

    fingerprint: Fingerprint
    settings: MonitorSettings | None = None
    """As they hold for this revision: they name the suite by which it is judged."""
    suite: Suite | None = None
    verdicts: KnownVerdicts = field(default_factory=KnownVerdicts)
    problem: Problem | None = None
    replayed: bool | None = None
    """Whether recorded answers got their recorded scores; None where the suite has none."""
    beside: Beside | None = None
    digest: str = ""
    """Of everything that was mounted (`settings.hash_config`)."""


def fingerprint(folder: Path) -> Fingerprint:
    """Changes whenever a file does; cheap enough for every two seconds."""
    seen: list[object] = []
    for name in ("..data", *FILES):
        try:
            status = (folder / name).stat()
        except OSError:
            seen.append(None)
        else:
            seen.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(seen)


def read_sources(folder: Path, identity: str = "", attempts: int = 3) -> Sources:
    """Read everything for a revision of this identity, again where the mount was swapped meanwhile."""
    for _ in range(attempts):
        before = fingerprint(folder)
        found = dataclasses.replace(_read(folder, before, identity), digest=_digest(folder))
        if fingerprint(folder) == before:
            break
    return found


def _digest(folder: Path) -> str:
    """Return the digest of all files, whatever they are called: a newer operator may mount more than is read here."""
    try:
        # The kubelet's own entries begin with two dots.
        files = [path for path in folder.iterdir() if not path.name.startswith("..")]
        return hash_config({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    except OSError:
        return ""  # A file that cannot be read is reported where it is needed.


def check_identity(folder: Path, promised: str) -> ServingIdentity | Problem:
    """The identity that this pod serves, if the revision's file is the one the pod was made for."""
    try:
        identity = loads(ServingIdentity, (folder / IDENTITY_FILE).read_bytes())
    except OSError as error:
        return Problem("IdentityMissing", f"{IDENTITY_FILE}: cannot be read: {error.strerror}")
    except ContractError as error:
        return Problem("IdentityInvalid", f"{IDENTITY_FILE}: {error}")
    if identity.digest() != promised:
        return Problem(
            "IdentityMismatch", f"{IDENTITY_FILE} has digest {identity.digest()}, the pod was made for {promised}"
        )
    return identity


def _read(folder: Path, seen: Fingerprint, identity: str) -> Sources:
    try:
        settings = loads(MonitorSettings, (folder / SETTINGS_FILE).read_bytes(), tolerant=True)
    except OSError as error:
        return Sources(seen, problem=Problem("SettingsMissing", f"{SETTINGS_FILE}: cannot be read: {error.strerror}"))
    except ContractError as error:
        return Sources(seen, problem=Problem("SettingsInvalid", f"{SETTINGS_FILE}: {error}"))
    if problem := _settings_problem(settings):
        return Sources(seen, problem=problem)
    verdicts = _verdicts(folder)
    if isinstance(verdicts, Problem):
        return Sources(seen, settings, problem=verdicts)
    named = _judged(folder, Sources(seen, settings, verdicts=verdicts), settings, NAMED)
    former = settings.former
    if former is None or identity not in former.identities:
        return named
    ours = dataclasses.replace(
        settings, suite=former.suite, suite_hash=former.suite_hash, reference_hash=former.reference_hash
    )
    beside = Beside(settings.suite, settings.suite_hash, named.suite, named.problem)
    return _judged(folder, Sources(seen, ours, verdicts=verdicts, beside=beside), ours, FORMER)


def _judged(folder: Path, found: Sources, settings: MonitorSettings, files: SuiteFiles) -> Sources:
    """`found` with the suite of these settings, which its recorded answers vouch for; or with what is wrong."""
    suite = _suite(folder, settings, files)
    if isinstance(suite, Problem):
        return dataclasses.replace(found, problem=suite)
    return _replayed(folder, settings, dataclasses.replace(found, suite=suite), suite, files)


def _settings_problem(settings: MonitorSettings) -> Problem | None:
    if not 0.0 < settings.threshold <= 1.0:
        return Problem("SettingsInvalid", f"threshold: {settings.threshold} must be above 0 and at most 1")
    try:
        Budget(settings.probes_per_minute, settings.most_pods, settings.false_alarm_days)
        bets(settings.steadiness)
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        # The detector calls it p0.
        return Problem("SettingsInvalid", f"{camel('steadiness' if name == 'p0' else name)}:{rest}")
    return None


def _verdicts(folder: Path) -> KnownVerdicts | Problem:
    try:
        return loads(KnownVerdicts, (folder / VERDICTS_FILE).read_bytes(), tolerant=True)
    except FileNotFoundError:
        return KnownVerdicts()
    except OSError as error:
        return Problem("VerdictsInvalid", f"{VERDICTS_FILE}: cannot be read: {error.strerror}")
    except ContractError as error:
        return Problem("VerdictsInvalid", f"{VERDICTS_FILE}: {error}")


def _suite(folder: Path, settings: MonitorSettings, files: SuiteFiles) -> Suite | Problem:
    try:
        header, items = ((folder / name).read_bytes().decode() for name in files[:2])
    except OSError as error:
        return Problem("SuiteMissing", f"suite {settings.suite}: {Path(error.filename or '').name}: {error.strerror}")
    except UnicodeDecodeError as error:
        return Problem("SuiteInvalid", f"suite {settings.suite}: not UTF-8: {error.reason}")
    try:
        suite = load_suite(header, items)
    except SuiteError as error:
        reason = "SuiteHashMismatch" if "sha256" in str(error) else "SuiteInvalid"
        return Problem(reason, str(error))
    if suite.header.sha256 != settings.suite_hash:
        return Problem(
            "SuiteHashMismatch",
            f"suite {settings.suite}: sha256 is {suite.header.sha256}, the deployment asks for {settings.suite_hash}",
        )
    return suite


def _replayed(folder: Path, settings: MonitorSettings, found: Sources, suite: Suite, files: SuiteFiles) -> Sources:
    """`found` with what the replay says; a scorer that is not what it was decides nothing."""
    recorded = files[2]
    try:
        text = (folder / recorded).read_bytes().decode()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        return _mismatch(found, f"{recorded}: cannot be read: {error}")
    if settings.reference_hash and hashlib.sha256(text.encode()).hexdigest() != settings.reference_hash:
        return _mismatch(found, f"{recorded}: its sha256 is not {settings.reference_hash}, as settings.json says")
    if not text:
        return found
    try:
        differing = replay(suite, read_reference(text, suite))
    except SuiteError as error:
        return _mismatch(found, str(error))
    if differing:
        more = f" and {len(differing) - MOST_TOLD} more" if len(differing) > MOST_TOLD else ""
        told = "; ".join(differing[:MOST_TOLD]) + more
        return _mismatch(found, f"recorded answers of the reference get other scores now: {told}")
    return dataclasses.replace(found, replayed=True)


def _mismatch(found: Sources, message: str) -> Sources:
    remedy = "nothing is decided until the suite or the monitor's image is mended"
    problem = Problem(SUITE_MISMATCH, f"{message}; {remedy}")
    return dataclasses.replace(found, suite=None, problem=problem, replayed=False)
