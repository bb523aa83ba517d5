"""By which suite what serves is judged: a new one shadows the former one before it counts. Called by the plan.

A suite takes effect where a revision has a decided gate on it. Until then what serves is judged by the suite that it
passed last: it is never unwatched, and a mistake in a suite pages no one. None of this is stored: it follows from the
revision's verdicts and the suites in the cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.monitor.settings import Former
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.mounted_suites import MountedSuites
from r1plus_operator.plan.engine.selection import Problem, Target, check_trust
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.manifests.children import hash_reference
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.settings import SuiteTrust

MOST_BYTES: Final = 948 * 1024
"""Of two suites in the ConfigMap that monitors read. Two larger ones are not run side by side."""


@dataclass(frozen=True, slots=True)
class SuiteSelection:
    """The suites of a deployment: usually one and the same."""

    spec_suite: SuiteSource
    """What the spec asks for: candidates are gated on it."""
    effective_suite: SuiteSource
    """By which what serves is judged."""
    serving_identity: str = ""
    """Digest of the identity of what serves; set where the two differ."""

    @property
    def suite(self) -> Suite:
        """The effective one, as it was read."""
        assert self.effective_suite.suite is not None
        return self.effective_suite.suite

    @property
    def is_shadowed(self) -> bool:
        """Whether the requested one does not count yet."""
        return hash_of(self.spec_suite) != hash_of(self.effective_suite)

    @property
    def hashes(self) -> frozenset[str]:
        """Of both."""
        return frozenset((hash_of(self.spec_suite), hash_of(self.effective_suite)))

    @property
    def terms(self) -> str:
        """Another text whenever either changes."""
        spec_suite = hash_of(self.spec_suite)
        return "+".join((spec_suite, hash_of(self.effective_suite))) if self.is_shadowed else spec_suite

    def of(self, revision: Revision) -> SuiteSource:
        """Return the suite by which a revision is judged.

        Monitors go by identity: what differs from what serves in its placement alone is judged by the same suite.
        """
        is_former = self.is_shadowed and revision.identity_digest == self.serving_identity
        return self.effective_suite if is_former else self.spec_suite

    def former_for(self, *identities: str) -> Former | None:
        """Return what monitors read: the revisions of these identities go by the effective suite. None without two."""
        if not self.is_shadowed:
            return None
        former, digests = self.effective_suite, tuple(sorted(set(identities)))
        return Former(former.name, hash_of(former), digests, hash_reference(former))


@dataclass(frozen=True, slots=True)
class SuiteSelector:
    """Selects the suites of a pass: another one when gate results or a promotion change what serves."""

    inputs: PassInputs
    target: Target | Problem
    """What the spec asks for."""
    mounted: MountedSuites
    """The suites that monitors have mounted: read while the spec has a Problem."""

    def select(self, revisions: Mapping[str, Revision]) -> SuiteSelection | None:
        """Return the suites in force, as verdicts and promotions stand; None while none is.

        While the spec has a Problem these are the suites that it asked for before, trusted today or not.
        """
        current, spec, observed = find_current_revision(revisions.values()), self.inputs.spec, self.inputs.observed
        if isinstance(self.target, Target):
            trust = self.inputs.config.suite_trust
            return select_suites(self.target.source, current, observed.suites, spec, trust)
        spec_suite = self._find_last_spec_suite(current) if current else None
        if spec_suite is None:
            return None
        former = self.mounted.former
        return select_suites(
            spec_suite, current, {former.name: former} if former else {}, spec, SuiteTrust(required=False)
        )

    def _find_last_spec_suite(self, current: Revision) -> SuiteSource | None:
        """Return the suite that the spec asked for last: as it is mounted, else as it is at hand."""
        last_hash = current.last_valid.suite_hash if current.last_valid else ""
        sources = (self.mounted.spec_suite, self.mounted.former, *self.inputs.observed.suites.values())
        same = (source for source in sources if source and source.suite and hash_of(source) == last_hash)
        return next(same, self.mounted.spec_suite)


def select_suites(
    spec_suite: SuiteSource,
    current: Revision | None,
    suites: Mapping[str, SuiteSource],
    spec: R1PlusDeploymentSpec,
    trust: SuiteTrust,
) -> SuiteSelection:
    """Return the spec's suite, with the former one as the effective one while that still counts for what serves.

    The former one is what the newest Pass is of; it counts no more where it is gone, altered or no longer trusted.
    """
    at_once = SuiteSelection(spec_suite, spec_suite)
    if current is None or not current.can_shadow:
        return at_once
    spec_hash = hash_of(spec_suite)
    if any(verdict.suite_hash == spec_hash for verdict in current.valid_verdicts):
        return at_once
    gate = _find_last_pass(current, spec.accuracy.threshold)
    former = suites.get(gate.suite) if gate else None
    if gate is None or former is None or former.suite is None or hash_of(former) != gate.suite_hash:
        return at_once
    if check_trust(spec, former, trust) or _size(former) + _size(spec_suite) > MOST_BYTES:
        return at_once
    return SuiteSelection(spec_suite, former, current.identity_digest)


def _find_last_pass(current: Revision, threshold: float) -> GateReport | None:
    """Return its newest Pass of a suite that it does not fail under this threshold.

    By a suite that it fails, none of its pods is let in. Only a pod that was let in runs another suite as a shadow: a
    mistake in a suite, once failed, could not be corrected by a third version.
    """
    for gate in reversed(current.valid_verdicts):
        verdict = current.verdict_for(gate.suite_hash, threshold)
        if gate.verdict is Verdict.PASS and (verdict is None or verdict.verdict is Verdict.PASS):
            return gate
    return None


def hash_of(source: SuiteSource) -> str:
    """Return the hash of a suite that could be read."""
    assert source.suite is not None
    return source.suite.header.sha256


def _size(source: SuiteSource) -> int:
    return sum(len(text.encode()) for text in (source.header_text, source.items_text, source.reference_text))
