"""Leader election on a Lease: of all candidates at most one believes that it leads.

No clock is ever compared with another machine's; the times in the Lease are for people. The leader believes until
`renew_deadline` after it *sent* the last renewal that was accepted. A candidate takes over once `duration` has passed
since it *heard* of the Lease's last change, and by a write that fails if there was another. Sent is before accepted,
accepted before heard: the belief ends before anyone takes over, as long as no clock runs duration / renew_deadline
(1.5 times) as fast as another.

`Claim` decides and does no I/O; `Elector` asks and writes. `Elector.remaining` is the client's fence.
"""

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

from r1plus_operator.runtime.errors import ApiError, ConflictError, NotFoundError
from r1plus_operator.runtime.resources import Resource

LEASE = Resource("coordination.k8s.io", "v1", "leases", "Lease")
_log = logging.getLogger(__name__)
_NEVER = float("-inf")
Object = dict[str, Any]


class LeaseLostError(Exception):
    """This process led and does no more. It ends: what it has in memory may be older than what its successor wrote."""


class LeaseApi(Protocol):
    """What an elector asks of the API server; `runtime.client.ApiClient` without a fence."""

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Object:
        """Read the Lease."""

    async def create(self, res: Resource, obj: Object) -> Object:
        """Make the first one; ConflictError if another candidate was first."""

    async def patch(self, res: Resource, name: str, namespace: str | None, body: Object) -> Object:
        """Change it; ConflictError if it is not of the resourceVersion in the body any more."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds; the defaults are controller-runtime's."""

    duration: float = 15.0
    """A candidate waits for so long without a change before it takes over."""
    renew_deadline: float = 10.0
    """The leader believes for so long after its last renewal."""
    retry: float = 2.0
    """The leader renews so often. A candidate looks twice as often: an empty Lease is taken within a second."""
    call: float = 5.0
    """No request takes longer, so that a hanging one leaves time for another."""

    @classmethod
    def lasting(cls, duration: float) -> "Terms":
        """Return terms with this `duration` in seconds; a free Lease is taken as soon as with the defaults."""
        return cls(duration, duration * 2 / 3, min(2.0, duration * 2 / 15), duration / 3)


@dataclass(frozen=True, slots=True)
class _Heard:
    """The Lease as it was last heard of; `version` is empty where there is none. `since`: when it was first so."""

    version: str
    holder: str
    transitions: int
    since: float


def since_boot() -> float:
    """Seconds that never go back and that, unlike time.monotonic's, pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Claim:
    """What one candidate knows and may believe. Told of every answer; asked what may be written."""

    def __init__(self, identity: str, terms: Terms, clock: Callable[[], float]) -> None:
        self._identity = identity
        self._terms = terms
        self._clock = clock
        self._heard: _Heard | None = None
        self._term: int | None = None
        """The transitions that our own claim wrote: another process of our name would have counted on."""
        self._until = _NEVER

    def remaining(self) -> float:
        """Seconds for which this process surely leads from now on; 0 or less where it does not."""
        return self._until - self._clock()

    def heard(self, lease: Object | None) -> None:
        """An answer has come that shows the Lease, or that there is none (whoever held one may not know that yet)."""
        before = self._heard or _Heard("", "", 0, self._clock())
        if lease is None:
            found = dataclasses.replace(before, version="")
        else:
            spec = lease.get("spec") or {}
            holder, transitions = spec.get("holderIdentity") or "", int(spec.get("leaseTransitions") or 0)
            found = _Heard(lease["metadata"]["resourceVersion"], holder, transitions, before.since)
        if self._heard is None or found.version != before.version:
            self._heard = dataclasses.replace(found, since=self._clock())

    def open_version(self) -> str | None:
        """The resourceVersion that may be replaced by our claim (empty: make the Lease); None while another leads.

        A holder of our own name is this very pod before its container started again, and dead.
        """
        seen = self._heard
        if seen is None:
            return None
        expired = self._clock() - seen.since > self._terms.duration
        return seen.version if expired or seen.holder in ("", self._identity) else None

    def held_version(self) -> str | None:
        """The resourceVersion that a renewal replaces (empty: make the Lease again); None if another has taken it."""
        seen = self._heard
        ours = seen is not None and (seen.holder, seen.transitions) == (self._identity, self._term)
        return seen.version if seen and ours else None

    def spec(self, *, new: bool) -> Object:
        """What a renewal writes, or a claim: that one is a `new` term, also after one of our own name."""
        term = self._heard.transitions + 1 if new and self._heard else self._term
        spec: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._terms.duration),
            "leaseTransitions": term,
            "renewTime": _now(),
        }
        return spec | {"acquireTime": spec["renewTime"]} if new else spec

    def won(self, lease: Object, sent_at: float) -> None:
        """Our claim or renewal, sent at `sent_at`, was accepted: belief counts from then, not from the answer."""
        self.heard(lease)
        self._term = lease["spec"]["leaseTransitions"]
        self._until = sent_at + self._terms.renew_deadline

    def lost(self) -> None:
        """Believe no more."""
        self._until = _NEVER


class Elector:
    """One candidate: `acquire`, then `hold` in a task, then `release`. Leads at most once in its life."""

    def __init__(
        self,
        api: LeaseApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        terms: Terms | None = None,
        clock: Callable[[], float] = since_boot,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: random.Random | None = None,
    ) -> None:
        """`identity` names the pod, not the process: one that starts again in its pod need not wait for itself."""
        self._api = api
        self._address = (name, namespace)
        self._identity = identity
        self._terms = terms or Terms()
        self._clock = clock
        self._sleep = sleep
        self._rand = rand or random.Random()  # noqa: S311 - jitter is no secret
        self._claim = Claim(identity, self._terms, clock)
        self._name = f"Lease {namespace}/{name}"

    def remaining(self) -> float:
        """Seconds for which this process surely leads; 0 or less where it does not."""
        return self._claim.remaining()

    @property
    def leads(self) -> bool:
        """Whether this process leads now."""
        return self.remaining() > 0

    async def attempt(self) -> bool:
        """Look at the Lease, take it if it is free; whether this process leads now. Refusals are logged, not raised."""
        try:
            await self._look()
            version = self._claim.open_version()
            if version is not None:
                await self._write(version, self._claim.spec(new=True))
                _log.info("Acquired %s as %s", self._name, self._identity)
        except ConflictError:
            _log.info("Another replica acquired %s first", self._name)
        except (ApiError, TimeoutError) as error:
            _log.warning("Could not read or acquire %s: %s", self._name, _text(error))
        return self.leads

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self.attempt():
            await self._sleep(self._terms.retry / 2 * self._rand.uniform(0.5, 1.0))

    async def hold(self) -> NoReturn:
        """Renew for ever.

        Raises:
            LeaseLostError: another holds the Lease, or no renewal was accepted within `renew_deadline`.
        """
        pause = self._terms.retry
        while True:
            await self._sleep(max(0.0, min(pause * self._rand.uniform(0.8, 1.0), self.remaining())))
            if not self.leads:
                raise LeaseLostError(f"{self._name}: not renewed within {self._terms.renew_deadline:g} s")
            pause = self._terms.retry if await self._renew() else self._terms.retry / 4

    async def release(self) -> None:
        """Let the next one take over at once. For whoever has ended all its writes."""
        version, leads = self._claim.held_version(), self.leads
        self._claim.lost()
        if not leads or version is None:
            return
        try:
            async with asyncio.timeout(self._terms.call):
                await self._patch(version, {"holderIdentity": "", "renewTime": _now()})
            _log.info("Released %s", self._name)
        except (ApiError, TimeoutError) as error:
            _log.warning("Could not release %s, it will expire: %s", self._name, _text(error))

    async def _renew(self) -> bool:
        """Renew once; False if it is not known whether that went well."""
        try:
            version = self._claim.held_version()
            if version is not None:
                await self._write(version, self._claim.spec(new=False))
                return True
        except ConflictError:
            _log.info("%s was changed by another client, reading it again", self._name)
        except (ApiError, TimeoutError) as error:
            _log.warning("Could not renew %s, %.1f s left: %s", self._name, self.remaining(), _text(error))
        return await self._still_ours()

    async def _still_ours(self) -> bool:
        """After a renewal without an answer: is the Lease ours? A change of it may well have been our own."""
        try:
            await self._look()
        except (ApiError, TimeoutError) as error:
            _log.warning("Could not read %s, %.1f s left: %s", self._name, self.remaining(), _text(error))
            return False
        if self._claim.held_version() is None:
            self._claim.lost()
            raise LeaseLostError(f"{self._name}: another process has taken it")
        return False

    async def _look(self) -> None:
        name, namespace = self._address
        try:
            async with asyncio.timeout(self._bound()):
                self._claim.heard(await self._api.get(LEASE, name, namespace))
        except NotFoundError:
            self._claim.heard(None)

    async def _write(self, version: str, spec: Object) -> None:
        sent_at = self._clock()
        async with asyncio.timeout(self._bound()):
            written = await (self._patch(version, spec) if version else self._create(spec))
        self._claim.won(written, sent_at)

    async def _patch(self, version: str, spec: Object) -> Object:
        name, namespace = self._address
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        return await self._api.patch(LEASE, name, namespace, body)

    async def _create(self, spec: Object) -> Object:
        name, namespace = self._address
        meta = {"name": name, "namespace": namespace}
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec}
        return await self._api.create(LEASE, body)

    def _bound(self) -> float:
        """How long a request may take: a leader's never beyond what it is sure of."""
        return min(self._terms.call, self.remaining()) if self.leads else self._terms.call


def _now() -> str:
    """As Kubernetes writes a MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(error: Exception) -> str:
    return str(error) or "no answer in time"
