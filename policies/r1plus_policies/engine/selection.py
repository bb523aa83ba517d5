"""Which engine serves a tier: the newest verified one that wish and hardware admit, and why each other one does not.

Called by the operator's plan and by `r1plus plan` and `explain`. What cluster and hardware have against an engine comes
in as an `Obstacle`; here it is decided what follows from it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class Standing(StrEnum):
    """On whose word an engine's reference rests."""

    MEASURED = "measured"
    INHERITED = "inherited"
    CLAIMED = "claimed"


@dataclass(frozen=True, slots=True)
class Score:
    """What an engine was measured to reach on a suite, in the condition that it did worst in."""

    suite: str
    correct: int
    items: int

    @property
    def share(self) -> float:
        """Of the items, those answered right."""
        return self.correct / self.items


@dataclass(frozen=True, slots=True)
class Offer:
    """One engine of the catalog, as far as choosing needs it."""

    name: str
    family: str
    tier: str
    version: str
    precision: str
    standing: Standing
    score: Score | None = None
    """Where it was measured on this very engine."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the deployment asks for; None leaves it open."""

    tier: str
    family: str
    version: str | None = None
    precision: str | None = None
    serving: Score | None = None
    """What the engine that serves was measured to reach: a change must not lower it."""
    allow_lower: bool = False


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an engine that the wish admits cannot serve here. `reason` is the condition's."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Passed:
    """An engine that was not taken, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine taken (None: none fits) and what became of the others."""

    engine: str | None
    why: str
    others: tuple[Passed, ...]
    obstacle: Obstacle | None = None
    """Where none is taken although the wish admits some: what stands before the best of them."""


LOWER = "ReferenceLower"


def choose(
    offers: Sequence[Offer], wish: Wish, obstacle: Callable[[Offer], Obstacle | None] = lambda _: None
) -> Choice:
    """Take the newest engine that wish and hardware admit; measured references come before all others.

    Where a measured engine is admitted by the wish but cannot serve here, none is taken whose reference nobody
    measured: for want of a node nobody shall get an engine of unknown quality. `obstacle` is asked about what the wish
    admits only.
    """
    others = [Passed(o.name, why) for o in offers if (why := _mismatch(o, wish))]
    admitted = sorted((o for o in offers if not _mismatch(o, wish)), key=_rank, reverse=True)
    if not admitted:
        return Choice(None, _nothing(offers, wish), _sorted(others))
    barred = {o.name: found for o in admitted if (found := obstacle(o) or _lower(o, wish))}
    first = admitted[0]
    free = [o for o in admitted if o.name not in barred]
    if not free or (first.standing is Standing.MEASURED and free[0].standing is not Standing.MEASURED):
        stands = barred[first.name]
        others += [Passed(o.name, barred[o.name].message if o.name in barred else _held(first)) for o in admitted]
        return Choice(None, stands.message, _sorted(others), stands)
    best = free[0]
    for offer in admitted:
        if offer is not best:
            stands_before = barred.get(offer.name)
            others.append(Passed(offer.name, stands_before.message if stands_before else _outranked(offer, best)))
    of = f"{best.precision}, {best.version}, reference {best.standing}"
    return Choice(best.name, f"newest {best.family} engine of tier {best.tier} that fits ({of})", _sorted(others))


def _sorted(others: list[Passed]) -> tuple[Passed, ...]:
    return tuple(sorted(others, key=lambda passed: passed.name))


def _mismatch(offer: Offer, wish: Wish) -> str | None:
    wanted = (
        ("tier", offer.tier, wish.tier),
        ("family", offer.family, wish.family),
        ("version", offer.version, wish.version),
        ("precision", offer.precision, wish.precision),
    )
    return next(
        (f"{name} is {has}, not {want}" for name, has, want in wanted if want is not None and has != want), None
    )


def _lower(offer: Offer, wish: Wish) -> Obstacle | None:
    """A measured reference that is lower than that of what serves. What was measured on another suite says nothing."""
    before, after = wish.serving, offer.score
    if wish.allow_lower or before is None or after is None or before.suite != after.suite:
        return None
    if after.correct * before.items >= before.correct * after.items:
        return None
    points = 100 * (before.share - after.share)
    text = (
        f"spec.accuracy.allowLower: {offer.name} was measured at {after.correct} of {after.items} on suite"
        f" {after.suite}, {points:.2f} points below what serves ({before.correct} of {before.items}); set it to true to"
        " take it all the same, or ask for another engine by spec.engine.version or spec.engine.precision"
    )
    return Obstacle(LOWER, text)


_STANDINGS = (Standing.CLAIMED, Standing.INHERITED, Standing.MEASURED)


def _rank(offer: Offer) -> tuple[int, tuple[int, ...], str]:
    return _STANDINGS.index(offer.standing), version_key(offer.version), offer.name


def version_key(version: str) -> tuple[int, ...]:
    """`1.10.0` sorts after `1.9.0`."""
    return tuple(int(part) for part in version.split("."))


def _outranked(offer: Offer, best: Offer) -> str:
    if offer.standing is not best.standing:
        remedy = f"ask for it by spec.engine.precision: {offer.precision}"
        return f"its reference is {offer.standing}, that of {best.name} is {best.standing}; {remedy}"
    if version_key(offer.version) != version_key(best.version):
        return f"version {offer.version} is older than {best.version}"
    return f"{best.name} comes first by name"


def _held(first: Offer) -> str:
    return f"{first.name} is measured and only cannot serve here: nothing unmeasured takes its place by itself"


def _meant(precision: str | None, known: Collection[str]) -> str:
    """In brackets the precision that may be meant; empty where none is alike, or it is one of these."""
    if precision is None or precision in known:
        return ""
    alike = get_close_matches(precision.upper(), sorted(known), n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _nothing(offers: Sequence[Offer], wish: Wish) -> str:
    of_tier = [o for o in offers if o.tier == wish.tier]
    closest = [o for o in of_tier if o.family == wish.family] or of_tier
    asked = ", ".join(
        f"{name} {value}"
        for name, value in (("family", wish.family), ("version", wish.version), ("precision", wish.precision))
        if value
    )
    asked += _meant(wish.precision, {o.precision for o in closest})
    have = "; ".join(sorted(f"{o.name} ({o.family} {o.version} {o.precision})" for o in closest)) or "none"
    return f"spec.engine: no engine of tier {wish.tier} with {asked}; the catalog has for this tier: {have}"
