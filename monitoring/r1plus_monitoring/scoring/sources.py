"""What the operator mounted: settings, suite and known verdicts. Polled by the prober, its only source.

A ConfigMap changes by a swap of its `..data` link. So equal fingerprints before and after reading show that the files
belong together.
"""

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import ContractError, loads, to_camel_case
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.settings import (
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
from r1plus_contract.suites.suite import Suite, SuiteError, load_suite
from r1plus_contract.suites.suite_reference import read_reference
from r1plus_monitoring.scoring.replay import replay
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import build_bets

SuiteFileNames = tuple[str, str, str]
"""Header, items, recorded answers."""
SUITE_FILES: Final = (SUITE_FILE, ITEMS_FILE, REFERENCE_FILE)
FORMER_SUITE_FILES: Final = (FORMER_SUITE_FILE, FORMER_ITEMS_FILE, FORMER_REFERENCE_FILE)
FILES: Final = (SETTINGS_FILE, VERDICTS_FILE, *SUITE_FILES, *FORMER_SUITE_FILES)
IDENTITY_FILE: Final = "identity.json"
SUITE_MISMATCH: Final = "SuiteMismatch"
CHECK_SETTINGS: Final = "check ConfigMap NAME-accuracy, which only the operator writes"
CHECK_REVISION: Final = "check the revision's ConfigMap, which only the operator writes"
"""Reason: recorded answers do not get their recorded scores, or are not the ones the operator accepted."""
MOST_LISTED: Final = 3

Fingerprint = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Why nothing can be scored; becomes the report's reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ShadowSuite:
    """A suite that is tried in the shadow of the one that counts, or why it cannot be."""

    name: str
    suite_hash: str
    suite: Suite | None = None
    problem: SourceProblem | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """One consistent reading. Where `problem` is set, `suite` must not be used."""

    fingerprint: Fingerprint
    settings: MonitorSettings | None = None
    """As they hold for this revision: they name the suite by which it is judged."""
    suite: Suite | None = None
    verdicts: KnownVerdicts = field(default_factory=KnownVerdicts)
    problem: SourceProblem | None = None
    replay_passed: bool | None = None
    """Whether recorded answers got their recorded scores; None where the suite has none."""
    shadow: ShadowSuite | None = None
    digest: str = ""
    """Of everything that was mounted (`settings.hash_config`)."""


def take_fingerprint(folder: Path) -> Fingerprint:
    """Return a value that changes whenever a file does; cheap enough for every two seconds."""
    entries: list[object] = []
    for name in ("..data", *FILES):
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - a Path for each costs as much as the call
        except OSError:
            entries.append(None)
        else:
            entries.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(entries)


def read_sources(folder: Path, identity: str = "", attempts: int = 3) -> Sources:
    """Read everything for a revision of this identity; read again where the mount was swapped meanwhile."""
    for _ in range(attempts):
        before = take_fingerprint(folder)
        sources = dataclasses.replace(_read(folder, before, identity), digest=_hash_files(folder))
        if take_fingerprint(folder) == before:
            break
    return sources


def _hash_files(folder: Path) -> str:
    """Return the digest of all files, whatever their names: a newer operator may mount more than is read here."""
    try:
        # The kubelet's own entries begin with two dots.
        files = [path for path in folder.iterdir() if not path.name.startswith("..")]
        return hash_config({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    except OSError:
        return ""  # A file that cannot be read is reported where it is needed.


def check_identity(folder: Path, promised: str) -> ServingIdentity | SourceProblem:
    """Return the identity that this pod serves, if the revision's file matches the one the pod was made for."""
    try:
        identity = loads(ServingIdentity, (folder / IDENTITY_FILE).read_bytes())
    except OSError as error:
        return SourceProblem("IdentityMissing", f"{IDENTITY_FILE}: cannot be read: {error.strerror}; {CHECK_REVISION}")
    except ContractError as error:
        return SourceProblem("IdentityInvalid", f"{IDENTITY_FILE}: {error}; {CHECK_REVISION}")
    if identity.digest() != promised:
        return SourceProblem(
            "IdentityMismatch",
            f"{IDENTITY_FILE} has digest {identity.digest()}, the pod was made for {promised}; {CHECK_REVISION}",
        )
    return identity


def _read(folder: Path, fingerprint: Fingerprint, identity: str) -> Sources:
    try:
        settings = loads(MonitorSettings, (folder / SETTINGS_FILE).read_bytes(), tolerant=True)
    except OSError as error:
        text = f"{SETTINGS_FILE}: cannot be read: {error.strerror}; {CHECK_SETTINGS}"
        return Sources(fingerprint, problem=SourceProblem("SettingsMissing", text))
    except ContractError as error:
        return Sources(
            fingerprint, problem=SourceProblem("SettingsInvalid", f"{SETTINGS_FILE}: {error}; {CHECK_SETTINGS}")
        )
    if problem := _check_settings(settings):
        return Sources(fingerprint, problem=problem)
    verdicts = _read_verdicts(folder)
    if isinstance(verdicts, SourceProblem):
        return Sources(fingerprint, settings, problem=verdicts)
    named_sources = _with_suite(folder, Sources(fingerprint, settings, verdicts=verdicts), settings, SUITE_FILES)
    former = settings.former
    if former is None or identity not in former.identities:
        return named_sources
    ours = dataclasses.replace(
        settings, suite=former.suite, suite_hash=former.suite_hash, reference_hash=former.reference_hash
    )
    shadow = ShadowSuite(settings.suite, settings.suite_hash, named_sources.suite, named_sources.problem)
    return _with_suite(folder, Sources(fingerprint, ours, verdicts=verdicts, shadow=shadow), ours, FORMER_SUITE_FILES)


def _with_suite(folder: Path, sources: Sources, settings: MonitorSettings, files: SuiteFileNames) -> Sources:
    """Return `sources` with the suite of these settings, checked by its recorded answers, or with the problem."""
    suite = _read_suite(folder, settings, files)
    if isinstance(suite, SourceProblem):
        return dataclasses.replace(sources, problem=suite)
    return _with_replay(folder, settings, dataclasses.replace(sources, suite=suite), suite, files)


def _check_settings(settings: MonitorSettings) -> SourceProblem | None:
    if not 0.0 < settings.threshold <= 1.0:
        return SourceProblem("SettingsInvalid", f"threshold: {settings.threshold} must be above 0 and at most 1")
    try:
        Budget(settings.probes_per_minute, settings.most_pods, settings.false_alarm_days)
        build_bets(settings.steadiness)
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        # The detector calls it p0.
        return SourceProblem("SettingsInvalid", f"{to_camel_case('steadiness' if name == 'p0' else name)}:{rest}")
    return None


def _read_verdicts(folder: Path) -> KnownVerdicts | SourceProblem:
    try:
        return loads(KnownVerdicts, (folder / VERDICTS_FILE).read_bytes(), tolerant=True)
    except FileNotFoundError:
        return KnownVerdicts()
    except OSError as error:
        return SourceProblem("VerdictsInvalid", f"{VERDICTS_FILE}: cannot be read: {error.strerror}; {CHECK_SETTINGS}")
    except ContractError as error:
        return SourceProblem("VerdictsInvalid", f"{VERDICTS_FILE}: {error}; {CHECK_SETTINGS}")


def _read_suite(folder: Path, settings: MonitorSettings, files: SuiteFileNames) -> Suite | SourceProblem:
    try:
        header, items = ((folder / name).read_bytes().decode() for name in files[:2])
    except OSError as error:
        text = f"suite {settings.suite}: {Path(error.filename or '').name}: {error.strerror}; {CHECK_SETTINGS}"
        return SourceProblem("SuiteMissing", text)
    except UnicodeDecodeError as error:
        return SourceProblem("SuiteInvalid", f"suite {settings.suite}: not UTF-8: {error.reason}")
    try:
        suite = load_suite(header, items)
    except SuiteError as error:
        reason = "SuiteHashMismatch" if "sha256" in str(error) else "SuiteInvalid"
        return SourceProblem(reason, str(error))
    if suite.header.sha256 != settings.suite_hash:
        return SourceProblem(
            "SuiteHashMismatch",
            f"suite {settings.suite}: sha256 is {suite.header.sha256}, the deployment requires {settings.suite_hash};"
            f" {CHECK_SETTINGS}",
        )
    return suite


def _with_replay(
    folder: Path, settings: MonitorSettings, sources: Sources, suite: Suite, files: SuiteFileNames
) -> Sources:
    """Return `sources` with the result of the replay; a changed scorer decides nothing."""
    reference_file = files[2]
    try:
        text = (folder / reference_file).read_bytes().decode()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        return _with_mismatch(sources, f"{reference_file}: cannot be read: {error}")
    if settings.reference_hash and hashlib.sha256(text.encode()).hexdigest() != settings.reference_hash:
        return _with_mismatch(
            sources, f"{reference_file}: its sha256 is not {settings.reference_hash}, as settings.json says"
        )
    if not text:
        return sources
    try:
        differences = replay(suite, read_reference(text, suite))
    except SuiteError as error:
        return _with_mismatch(sources, str(error))
    if differences:
        more = f" and {len(differences) - MOST_LISTED} more" if len(differences) > MOST_LISTED else ""
        listed_differences = "; ".join(differences[:MOST_LISTED]) + more
        return _with_mismatch(sources, f"recorded answers no longer get their recorded scores: {listed_differences}")
    return dataclasses.replace(sources, replay_passed=True)


def _with_mismatch(sources: Sources, message: str) -> Sources:
    remedy = "accuracy is unknown; restore the suite or the monitor's image"
    problem = SourceProblem(SUITE_MISMATCH, f"{message}; {remedy}")
    return dataclasses.replace(sources, suite=None, problem=problem, replay_passed=False)
