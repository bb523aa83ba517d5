"""By which suite what serves is judged: a new one is asked beside the former one before it counts. Called by the plan.

A suite takes effect where a revision has a decided gate on it. Until then what serves goes on being judged by the suite
that it passed last, so that it is never unwatched and that no slip of a suite's author pages anybody. Nothing of it is
stored: it follows from the verdicts that stand on the revision and from the suites that there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.settings import Former
from r1plus_contract.suite import Suite
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.selection import check_trust
from r1plus_operator.plan.manifests.children import hash_reference
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.settings import SuiteTrust

MOST_BYTES: Final = 948 * 1024
"""Of two suites in the ConfigMap that monitors read. Two that are larger are not run side by side."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Two suites, most often one and the same."""

    asked: SuiteSource
    """What the spec asks for: candidates are gated on it."""
    counts: SuiteSource
    """By which what serves is judged."""
    served: str = ""
    """Digest of the identity of what serves; told where the two differ."""

    @property
    def suite(self) -> Suite:
        """The one that counts, as it was read."""
        assert self.counts.suite is not None
        return self.counts.suite

    @property
    def shadowed(self) -> bool:
        """Whether what is asked for does not count yet."""
        return hash_of(self.asked) != hash_of(self.counts)

    @property
    def hashes(self) -> frozenset[str]:
        """Of both."""
        return frozenset((hash_of(self.asked), hash_of(self.counts)))

    @property
    def terms(self) -> str:
        """Another one whenever either changes."""
        return "+".join((hash_of(self.asked), hash_of(self.counts))) if self.shadowed else hash_of(self.asked)

    def of(self, revision: Revision) -> SuiteSource:
        """The one that a revision is judged by.

        Monitors go by identity: what differs from what serves in its placement alone is judged as that is.
        """
        return self.counts if self.shadowed and revision.identity_digest == self.served else self.asked

    def told_to(self, *identities: str) -> Former | None:
        """What monitors are told: the revisions of these identities go by the former suite."""
        if not self.shadowed:
            return None
        ours = tuple(sorted(set(identities)))
        return Former(self.counts.name, hash_of(self.counts), ours, hash_reference(self.counts))


def judging(
    asked: SuiteSource,
    serving: Revision | None,
    suites: Mapping[str, SuiteSource],
    spec: R1PlusDeploymentSpec,
    trust: SuiteTrust,
) -> Judging:
    """The suite that counts for what serves: what the spec asks for, unless it is still asked beside the former one.

    The former one is what the newest Pass is of; it counts no more where it is gone, altered or no longer trusted.
    """
    at_once = Judging(asked, asked)
    if serving is None or not serving.takes_shadows:
        return at_once
    if any(verdict.suite_hash == hash_of(asked) for verdict in serving.counted):
        return at_once
    passed = _last_passed(serving, spec.accuracy.threshold)
    former = suites.get(passed.suite) if passed else None
    if passed is None or former is None or former.suite is None or hash_of(former) != passed.suite_hash:
        return at_once
    if check_trust(spec, former, trust) or _size(former) + _size(asked) > MOST_BYTES:
        return at_once
    return Judging(asked, former, serving.identity_digest)


def _last_passed(serving: Revision, threshold: float) -> GateReport | None:
    """Its newest Pass of a suite that it does not fail under this threshold.

    By a suite that it fails no pod of it is let in, and only a pod that was let in asks another one beside it: a slip
    of the author, once failed, could not be mended by a third version.
    """
    for gate in reversed(serving.counted):
        stands = serving.verdict_for(gate.suite_hash, threshold)
        if gate.verdict is Verdict.PASS and (stands is None or stands.verdict is Verdict.PASS):
            return gate
    return None


def hash_of(source: SuiteSource) -> str:
    """Of a suite that could be read."""
    assert source.suite is not None
    return source.suite.header.sha256


def _size(source: SuiteSource) -> int:
    return sum(len(text.encode()) for text in (source.header_text, source.items_text, source.reference_text))
