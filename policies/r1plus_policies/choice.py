"""Which engine serves a tier: the newest verified one that the wish admits, and why each other one does not.

Called by the operator's plan and by `r1plus plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """One engine of the catalog, as far as choosing needs it."""

    name: str
    family: str
    tier: str
    version: str
    precision: str
    measured: bool
    """True when its reference was measured on this very engine, False when inherited from another."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the deployment asks for; None leaves it open."""

    tier: str
    family: str
    version: str | None = None
    precision: str | None = None


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


def choose(offers: Sequence[Offer], wish: Wish) -> Choice:
    """Take the newest engine that the wish admits; measured references come before inherited ones."""
    fitting: list[Offer] = []
    others: list[Passed] = []
    for offer in sorted(offers, key=lambda o: o.name):
        if why := _mismatch(offer, wish):
            others.append(Passed(offer.name, why))
        else:
            fitting.append(offer)
    if not fitting:
        return Choice(None, _nothing(offers, wish), tuple(others))
    fitting.sort(key=_rank, reverse=True)
    best = fitting[0]
    others += [Passed(o.name, _outranked(o, best)) for o in fitting[1:]]
    kind = "measured" if best.measured else "inherited"
    of = f"{best.precision}, {best.version}, reference {kind}"
    why = f"newest {best.family} engine of tier {best.tier} that fits ({of})"
    return Choice(best.name, why, tuple(others))


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


def _rank(offer: Offer) -> tuple[bool, tuple[int, ...], str]:
    return offer.measured, version_key(offer.version), offer.name


def version_key(version: str) -> tuple[int, ...]:
    """`1.10.0` sorts after `1.9.0`."""
    return tuple(int(part) for part in version.split("."))


def _outranked(offer: Offer, best: Offer) -> str:
    if best.measured and not offer.measured:
        remedy = f"ask for it by spec.engine.precision: {offer.precision}"
        return f"its reference is inherited, that of {best.name} is measured; {remedy}"
    if version_key(offer.version) != version_key(best.version):
        return f"version {offer.version} is older than {best.version}"
    return f"{best.name} comes first by name"


def _nothing(offers: Sequence[Offer], wish: Wish) -> str:
    asked = ", ".join(
        f"{name} {value}"
        for name, value in (("family", wish.family), ("version", wish.version), ("precision", wish.precision))
        if value
    )
    of_tier = sorted(f"{o.name} ({o.family} {o.version} {o.precision})" for o in offers if o.tier == wish.tier)
    have = "; ".join(of_tier) if of_tier else "none"
    return f"spec.engine: no engine of tier {wish.tier} with {asked}; the catalog has for this tier: {have}"
