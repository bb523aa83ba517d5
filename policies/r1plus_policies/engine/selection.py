"""Which engine serves a tier: the newest verified one that request and hardware allow, and why each other one does
not.

Called by the operator's plan and by `r1plus plan` and `explain`. Reasons of cluster and hardware against an engine come
in as an `Obstacle`; this module decides what follows from them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class ReferenceSource(StrEnum):
    """Where the reference accuracy of an engine comes from."""

    MEASURED = "measured"
    INHERITED = "inherited"
    CLAIMED = "claimed"


@dataclass(frozen=True, slots=True)
class SuiteScore:
    """The measured result of an engine on a suite, under its worst condition."""

    suite: str
    correct: int
    items: int

    @property
    def share(self) -> float:
        """Share of items answered right."""
        return self.correct / self.items


@dataclass(frozen=True, slots=True)
class EngineCandidate:
    """One engine of the catalog, as far as selection needs it."""

    name: str
    family: str
    tier: str
    version: str
    precision: str
    reference_source: ReferenceSource
    score: SuiteScore | None = None
    """Where it was measured on exactly this engine."""
    is_sparse: bool = False
    """Whether it leaves tokens out of its attention."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What the deployment asks for; None leaves it open."""

    tier: str
    family: str
    version: str | None = None
    precision: str | None = None
    serving_score: SuiteScore | None = None
    """The measured result of the serving engine: a change must not lower it."""
    allow_lower: bool = False


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an engine that the request allows cannot serve here. `reason` is that of the condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """An engine that was not chosen, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen engine (None: none fits) and the rejections."""

    engine: str | None
    why: str
    others: tuple[Rejection, ...]
    obstacle: Obstacle | None = None
    """Where none is chosen although the request allows some: the obstacle of the best of them."""


LOWER = "ReferenceLower"


def choose_engine(
    candidates: Sequence[EngineCandidate],
    request: EngineRequest,
    find_obstacle: Callable[[EngineCandidate], Obstacle | None] = lambda _: None,
) -> Choice:
    """Choose the newest engine that request and hardware allow; measured references come before all others.

    Where a measured engine is allowed by the request but cannot serve here, no unmeasured one is chosen: a missing node
    must not lead to an engine of unknown quality. Nor does a sparse engine replace its dense twin, whether or not that
    can serve: a suite of short questions would not show the difference. `find_obstacle` is called only for what is
    left.
    """
    rejections = [Rejection(o.name, why) for o in candidates if (why := _find_mismatch(o, request))]
    allowed = [o for o in candidates if not _find_mismatch(o, request)]
    twins = {o.name: twin for o in allowed if (twin := _find_dense_twin(o, allowed))}
    rejections += [Rejection(name, _explain_twin(twin)) for name, twin in twins.items()]
    eligible = sorted((o for o in allowed if o.name not in twins), key=_rank, reverse=True)
    if not eligible:
        return Choice(None, _explain_no_candidate(candidates, request), _sort_rejections(rejections))
    obstacles = {o.name: obstacle for o in eligible if (obstacle := find_obstacle(o) or _check_reference(o, request))}
    first = eligible[0]
    placeable = [o for o in eligible if o.name not in obstacles]
    if not placeable or (
        first.reference_source is ReferenceSource.MEASURED
        and placeable[0].reference_source is not ReferenceSource.MEASURED
    ):
        first_obstacle = obstacles[first.name]
        rejections += [
            Rejection(o.name, obstacles[o.name].message if o.name in obstacles else _explain_unmeasured(first))
            for o in eligible
        ]
        return Choice(None, first_obstacle.message, _sort_rejections(rejections), first_obstacle)
    best = placeable[0]
    for candidate in eligible:
        if candidate is not best:
            own_obstacle = obstacles.get(candidate.name)
            rejections.append(
                Rejection(candidate.name, own_obstacle.message if own_obstacle else _explain_rank(candidate, best))
            )
    of = f"{best.precision}, {best.version}, reference {best.reference_source}"
    return Choice(
        best.name, f"newest {best.family} engine of tier {best.tier} that fits ({of})", _sort_rejections(rejections)
    )


def _sort_rejections(rejections: list[Rejection]) -> tuple[Rejection, ...]:
    return tuple(sorted(rejections, key=lambda rejection: rejection.name))


def _find_mismatch(candidate: EngineCandidate, request: EngineRequest) -> str | None:
    criteria = (
        ("tier", candidate.tier, request.tier),
        ("family", candidate.family, request.family),
        ("version", candidate.version, request.version),
        ("precision", candidate.precision, request.precision),
    )
    return next(
        (
            f"{name} is {actual}, not {expectation}"
            for name, actual, expectation in criteria
            if expectation is not None and actual != expectation
        ),
        None,
    )


def _check_reference(candidate: EngineCandidate, request: EngineRequest) -> Obstacle | None:
    """Return an obstacle where the measured reference is lower than that of the serving engine, on the same suite."""
    before, after = request.serving_score, candidate.score
    if request.allow_lower or before is None or after is None or before.suite != after.suite:
        return None
    if after.correct * before.items >= before.correct * after.items:
        return None
    points = 100 * (before.share - after.share)
    text = (
        f"spec.accuracy.allowLower: {candidate.name} was measured at {after.correct} of {after.items} on suite"
        f" {after.suite}, {points:.2f} points below the serving engine ({before.correct} of {before.items}); set it to"
        " true to allow that, or select another engine by spec.engine.version or spec.engine.precision"
    )
    return Obstacle(LOWER, text)


def _find_dense_twin(candidate: EngineCandidate, allowed: Sequence[EngineCandidate]) -> EngineCandidate | None:
    """Return an engine that a request cannot tell from a sparse one, and that attends to all; None: there is none."""
    if not candidate.is_sparse:
        return None
    return next((o for o in allowed if not o.is_sparse and _describe(o) == _describe(candidate)), None)


def _describe(candidate: EngineCandidate) -> tuple[str, ...]:
    return candidate.tier, candidate.family, candidate.version, candidate.precision


def _explain_twin(dense: EngineCandidate) -> str:
    return (
        f"it leaves tokens out of its attention (spec.attention), and {dense.name} of the same family, version and"
        " precision does not; give it a family of its own, and select that by spec.engine.family"
    )


_STANDINGS = (ReferenceSource.CLAIMED, ReferenceSource.INHERITED, ReferenceSource.MEASURED)


def _rank(candidate: EngineCandidate) -> tuple[int, tuple[int, ...], str]:
    return _STANDINGS.index(candidate.reference_source), version_key(candidate.version), candidate.name


def version_key(version: str) -> tuple[int, ...]:
    """Return a sort key: `1.10.0` comes after `1.9.0`."""
    return tuple(int(part) for part in version.split("."))


def _explain_rank(candidate: EngineCandidate, best: EngineCandidate) -> str:
    if candidate.reference_source is not best.reference_source:
        remedy = f"select it by spec.engine.precision: {candidate.precision}"
        return (
            f"its reference is {candidate.reference_source}, that of {best.name} is {best.reference_source}; {remedy}"
        )
    if version_key(candidate.version) != version_key(best.version):
        return f"version {candidate.version} is older than {best.version}"
    return f"{best.name} comes first by name"


def _explain_unmeasured(first: EngineCandidate) -> str:
    return f"{first.name} is measured but cannot serve here: an unmeasured engine does not replace it automatically"


def _suggest_precision(precision: str | None, known_precisions: Collection[str]) -> str:
    """Return a similar precision in brackets; empty where none is similar, or it is one of these."""
    if precision is None or precision in known_precisions:
        return ""
    alike = get_close_matches(precision.upper(), sorted(known_precisions), n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _explain_no_candidate(candidates: Sequence[EngineCandidate], request: EngineRequest) -> str:
    of_tier = [o for o in candidates if o.tier == request.tier]
    closest = [o for o in of_tier if o.family == request.family] or of_tier
    criteria = ", ".join(
        f"{name} {value}"
        for name, value in (("family", request.family), ("version", request.version), ("precision", request.precision))
        if value
    )
    criteria += _suggest_precision(request.precision, {o.precision for o in closest})
    have = "; ".join(sorted(f"{o.name} ({o.family} {o.version} {o.precision})" for o in closest)) or "none"
    return f"spec.engine: no engine of tier {request.tier} with {criteria}; the catalog has for this tier: {have}"
