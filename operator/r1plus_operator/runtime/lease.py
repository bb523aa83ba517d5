"""Leader election on a Lease: of all candidates at most one believes that it leads.

No clock is ever compared with another machine's; the times in the Lease are for people. The leader believes until
`renew_deadline` after it *sent* the last renewal that was accepted. A candidate takes over once `duration` has passed
since it *heard* of the Lease's last change, and by a write that fails if there was another. Sent is before accepted,
accepted before heard: the belief ends before anyone takes over, as long as no clock runs duration / renew_deadline
(1.5 times) as fast as another.

Every candidate reads the Lease each second or two, one request after another, so its resourceVersion never goes back.
If it does, etcd was set back, and all that this process has read is of a future that did not happen.

`Claim` decides and does no I/O; `Elector` reads and writes. `Elector.count_remaining_seconds` is the client's fence.
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
    """This process does not lead any more. It must end: its memory may be older than what its successor wrote."""


class SetBackError(Exception):
    """Etcd was set back to a backup. This process must end: caches and watches are from after that backup.

    The API server accepts a watch from a version that is still to come, and is silent until the counter has passed it.
    """


class LeaseApi(Protocol):
    """The verbs that an elector uses; `runtime.client.ApiClient` without a fence has them."""

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Object:
        """Read the Lease."""

    async def create(self, res: Resource, obj: Object) -> Object:
        """Create the Lease; raise ConflictError if another candidate was first."""

    async def patch(self, res: Resource, name: str, namespace: str | None, body: Object) -> Object:
        """Change the Lease; raise ConflictError if its resourceVersion is not that of the body any more."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Seconds; the defaults are controller-runtime's."""

    duration: float = 15.0
    """How long a candidate waits without a change before it takes over."""
    renew_deadline: float = 10.0
    """How long the leader believes that it leads after its last renewal."""
    retry: float = 2.0
    """How often the leader renews. A candidate reads twice as often: an empty Lease is taken within a second."""
    call: float = 5.0
    """How long a request may take, so that one that hangs leaves time for another."""

    @classmethod
    def for_duration(cls, duration: float) -> "LeaseTerms":
        """Return terms with this `duration` in seconds; a free Lease is taken as soon as with the defaults."""
        return cls(duration, duration * 2 / 3, min(2.0, duration * 2 / 15), duration / 3)


@dataclass(frozen=True, slots=True)
class _LeaseObservation:
    """The Lease as last read; `version` is empty if there is none. `since`: when this version was first read."""

    version: str
    holder: str
    transitions: int
    since: float


def read_boot_clock() -> float:
    """Return seconds that never go back and that, unlike time.monotonic's, pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Claim:
    """What one candidate knows and may believe, derived from every answer."""

    def __init__(
        self,
        identity: str,
        terms: LeaseTerms,
        clock: Callable[[], float],
        read_time: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._terms = terms
        self._clock = clock
        self._read_time = read_time
        self._observation: _LeaseObservation | None = None
        self._term: int | None = None
        """The transitions that our own claim wrote: another process of our name would have raised them."""
        self._until = _NEVER
        self._newest_version = 0
        """The highest that the Lease has had, also where it was deleted since."""

    def count_remaining_seconds(self) -> float:
        """Return the seconds for which this process surely leads from now on; 0 or less if it does not lead."""
        return self._until - self._clock()

    def observe_lease(self, lease: Object | None) -> None:
        """Record an answer that shows the Lease; None: there is none, which its last holder may not know yet.

        Raises:
            SetBackError: its version is lower than one before. This process does not lead any more.
        """
        before = self._observation or _LeaseObservation("", "", 0, self._clock())
        if lease is not None:
            self._check_version(int(lease["metadata"]["resourceVersion"]))
        if lease is None:
            observation = dataclasses.replace(before, version="")
        else:
            spec = lease.get("spec") or {}
            holder, transitions = spec.get("holderIdentity") or "", int(spec.get("leaseTransitions") or 0)
            observation = _LeaseObservation(lease["metadata"]["resourceVersion"], holder, transitions, before.since)
        if self._observation is None or observation.version != before.version:
            self._observation = dataclasses.replace(observation, since=self._clock())

    def find_claimable_version(self) -> str | None:
        """Return the resourceVersion that our claim may replace (empty: create the Lease); None while another leads.

        A holder of our own name is this very pod before its container restarted, and dead.
        """
        observation = self._observation
        if observation is None:
            return None
        has_expired = self._clock() - observation.since > self._terms.duration
        return observation.version if has_expired or observation.holder in ("", self._identity) else None

    def find_renewable_version(self) -> str | None:
        """Return the resourceVersion that a renewal replaces, or None if another took the Lease.

        Empty: the Lease is gone, and the renewal creates it again.
        """
        observation = self._observation
        is_ours = observation is not None and (observation.holder, observation.transitions) == (
            self._identity,
            self._term,
        )
        return observation.version if observation and is_ours else None

    def build_spec(self, *, new: bool) -> Object:
        """Build the spec of a renewal or of a claim.

        A claim begins a `new` term, also after a holder of our own name.
        """
        term = self._observation.transitions + 1 if new and self._observation else self._term
        spec: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._terms.duration),
            "leaseTransitions": term,
            "renewTime": _format_time(self._read_time()),
        }
        return spec | {"acquireTime": spec["renewTime"]} if new else spec

    def record_acceptance(self, lease: Object, sent_at: float) -> None:
        """Record that our claim or renewal was accepted: belief counts from `sent_at`, not from the answer."""
        self.observe_lease(lease)
        self._term = lease["spec"]["leaseTransitions"]
        self._until = sent_at + self._terms.renew_deadline

    def give_up(self) -> None:
        """Stop believing that this process leads."""
        self._until = _NEVER

    def _check_version(self, version: int) -> None:
        if version < self._newest_version:
            self.give_up()
            raise SetBackError(
                f"the Lease has resourceVersion {version}, and had {self._newest_version} before: etcd was restored"
                " from a backup. Do nothing: Kubernetes restarts this container, which reads everything again"
            )
        self._newest_version = version


class Elector:
    """One candidate: `acquire`, then `hold` in a task, then `release`. Leads at most once in its life."""

    def __init__(
        self,
        api: LeaseApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        terms: LeaseTerms | None = None,
        clock: Callable[[], float] = read_boot_clock,
        read_time: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: random.Random | None = None,
    ) -> None:
        """Take an `identity` that names the pod, not the process.

        A restart in the same pod need not wait for itself.
        """
        self._api = api
        self._address = (name, namespace)
        self._identity = identity
        self._terms = terms or LeaseTerms()
        self._clock = clock
        self._read_time = read_time
        self._sleep = sleep
        self._rand = rand or random.Random()  # noqa: S311 - jitter is no secret
        self._claim = Claim(identity, self._terms, clock, read_time)
        self._name = f"Lease {namespace}/{name}"

    def count_remaining_seconds(self) -> float:
        """Return the seconds for which this process surely leads; 0 or less if it does not lead."""
        return self._claim.count_remaining_seconds()

    @property
    def is_leader(self) -> bool:
        """Whether this process leads now."""
        return self.count_remaining_seconds() > 0

    async def attempt(self) -> bool:
        """Read the Lease and take it if it is free.

        Return whether this process leads. Refusals are logged, not raised.

        Raises:
            SetBackError: etcd was set back.
        """
        try:
            await self._read_lease()
            version = self._claim.find_claimable_version()
            if version is not None:
                await self._write(version, self._claim.build_spec(new=True))
                _log.info("Acquired %s as %s", self._name, self._identity)
        except ConflictError:
            _log.info("Another replica acquired %s first", self._name)
        except (ApiError, TimeoutError) as error:
            _log.warning("Could not read or acquire %s: %s", self._name, _describe_error(error))
        return self.is_leader

    async def acquire(self) -> None:
        """Wait until this process leads.

        Raises:
            SetBackError: etcd was set back.
        """
        while not await self.attempt():
            await self._sleep(self._terms.retry / 2 * self._rand.uniform(0.5, 1.0))

    async def hold(self) -> NoReturn:
        """Renew for ever.

        Raises:
            LeaseLostError: another holds the Lease, or no renewal was accepted within `renew_deadline`.
            SetBackError: etcd was set back.
        """
        pause = self._terms.retry
        while True:
            await self._sleep(max(0.0, min(pause * self._rand.uniform(0.8, 1.0), self.count_remaining_seconds())))
            if not self.is_leader:
                raise LeaseLostError(f"{self._name}: not renewed within {self._terms.renew_deadline:g} s")
            pause = self._terms.retry if await self._renew() else self._terms.retry / 4

    async def release(self) -> None:
        """Let the next candidate take over at once. Call it after the last write has ended."""
        version, leads = self._claim.find_renewable_version(), self.is_leader
        self._claim.give_up()
        if not leads or version is None:
            return
        try:
            async with asyncio.timeout(self._terms.call):
                await self._patch(version, {"holderIdentity": "", "renewTime": _format_time(self._read_time())})
            _log.info("Released %s", self._name)
        except (ApiError, TimeoutError) as error:
            _log.warning("Could not release %s, it will expire: %s", self._name, _describe_error(error))

    async def _renew(self) -> bool:
        """Renew once; return False if the result is not known."""
        try:
            version = self._claim.find_renewable_version()
            if version is not None:
                await self._write(version, self._claim.build_spec(new=False))
                return True
        except ConflictError:
            _log.info("%s was changed by another client, reading it again", self._name)
        except (ApiError, TimeoutError) as error:
            _log.warning(
                "Could not renew %s, %.1f s left: %s",
                self._name,
                self.count_remaining_seconds(),
                _describe_error(error),
            )
        return await self._check_holder()

    async def _check_holder(self) -> bool:
        """Check who holds the Lease after a renewal without an answer; the renewal may have succeeded.

        Raises:
            LeaseLostError: another process holds it.
        """
        try:
            await self._read_lease()
        except (ApiError, TimeoutError) as error:
            _log.warning(
                "Could not read %s, %.1f s left: %s",
                self._name,
                self.count_remaining_seconds(),
                _describe_error(error),
            )
            return False
        if self._claim.find_renewable_version() is None:
            self._claim.give_up()
            raise LeaseLostError(f"{self._name}: another process has taken it")
        return False

    async def _read_lease(self) -> None:
        name, namespace = self._address
        try:
            async with asyncio.timeout(self._compute_timeout()):
                self._claim.observe_lease(await self._api.get(LEASE, name, namespace))
        except NotFoundError:
            self._claim.observe_lease(None)

    async def _write(self, version: str, spec: Object) -> None:
        sent_at = self._clock()
        async with asyncio.timeout(self._compute_timeout()):
            lease = await (self._patch(version, spec) if version else self._create(spec))
        self._claim.record_acceptance(lease, sent_at)

    async def _patch(self, version: str, spec: Object) -> Object:
        name, namespace = self._address
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        return await self._api.patch(LEASE, name, namespace, body)

    async def _create(self, spec: Object) -> Object:
        name, namespace = self._address
        meta = {"name": name, "namespace": namespace}
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec}
        return await self._api.create(LEASE, body)

    def _compute_timeout(self) -> float:
        """Return how long a request may take: a leader's never longer than it surely leads."""
        return min(self._terms.call, self.count_remaining_seconds()) if self.is_leader else self._terms.call


def _format_time(seconds: float) -> str:
    """Return seconds since the epoch as Kubernetes writes a MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _describe_error(error: Exception) -> str:
    return str(error) or "no answer in time"
