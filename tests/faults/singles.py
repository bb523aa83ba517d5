"""Faults that are no point of a trace: whole streams, whole kinds, the token, the API server, the operator itself.

Each happens to a deployment that serves, beside a neighbour to which nothing happens; then both stories go on, and both
must end as without a fault.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from faults import oracle
from faults.calls import Call, Fault, Json, Point
from faults.campaign import Reference, Result, tell, unexpected_errors
from faults.lane import Lane
from faults.oracle import CONVERGE_SECONDS
from faults.rig import LEASE_SECONDS, Case, Rig, write_token
from faults.scenario import BRIEF, NAME, Quiet, Story
from r1plus_operator.api import kinds
from support.apiserver.monitors import Monitors
from support.apiserver.tenant import Tenant
from support.waiting import eventually

SILENT_STREAM_SECONDS = 160.0
"""A stream without a sign of life is dead after 150 s; TCP's own keepalive finds a dead peer within a minute."""
OUTAGE_SECONDS = 20.0
REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Single:
    """`happens` is the interlude; `remade` children that it removes by hand, so that they are created once more."""

    name: str
    happens: Callable[[Story], Awaitable[None]]
    remade: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    """Texts of ERROR lines that belong to the fault."""
    ends: bool = False
    """Whether the operator may end and be started again."""
    lasts: float = 0.0
    """Seconds."""


async def _lose(story: Story) -> Callable[[], bool]:
    """Somebody deletes the Service; what to wait for."""
    before = story.rig.get("Service", story.namespace, NAME)
    assert before is not None
    await story.rig.delete(kinds.BY_KIND["Service"], before)

    def back() -> bool:
        found = story.rig.get("Service", story.namespace, NAME)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    return back


async def gone(story: Story) -> None:
    """Every watch ends; while none is open a CR and children are deleted; then 410: only a new list can tell."""
    traffic, client = story.rig.traffic, story.rig.client
    await Tenant(client, story.namespace, Monitors()).deploy("ghost", tier="edge", context={"maxTokens": 1024})
    await story.reached(lambda: story.has("NetworkPolicy", "ghost") and story.has("Service", "ghost"), "ghost is there")
    await story.calm()
    answered: set[tuple[str, str]] = set()

    def rule(call: Call) -> Fault | None:
        if call.verb != "watch":
            return None
        if not traffic.released.is_set():
            return Fault.HOLD
        if (call.plural, call.selector) in answered:
            return None
        answered.add((call.plural, call.selector))
        return Fault.GONE

    traffic.rule = rule
    traffic.released.clear()
    for stream in list(story.rig.proxy.streams):
        stream.end()
    ghost = await client.get(kinds.R1PLUS_DEPLOYMENT, "ghost", story.namespace)
    await story.rig.delete(kinds.R1PLUS_DEPLOYMENT, ghost)
    await story.rig.collect(story.namespace, ghost)
    back = await _lose(story)
    traffic.released.set()
    await story.reached(back, "the Service is back")
    await story.calm()
    left = [key for key in oracle.end_state(story.rig, story.namespace) if "ghost" in key]
    assert not left, f"children of a deleted deployment were made: {left}"


async def stream_errors(story: Story) -> None:
    """The server says ERROR 500 in every watch."""
    for stream in list(story.rig.proxy.streams):
        stream.error(500, "InternalError")
    await story.reached(await _lose(story), "the Service is back")


async def truncated(story: Story) -> None:
    """Every watch breaks off in the middle of a line."""
    for stream in list(story.rig.proxy.streams):
        stream.truncate()
    await story.reached(await _lose(story), "the Service is back")


async def half_open(story: Story) -> None:
    """Every watch stays open and says nothing more."""
    for stream in list(story.rig.proxy.streams):
        stream.frozen = True
    await story.reached(await _lose(story), "the Service is back")


async def _refused(story: Story, fault: Fault, which: Callable[[Call], bool], until: Callable[[int], bool]) -> None:
    """What `which` holds for is refused until enough was."""
    count, enough = 0, asyncio.Event()

    def rule(call: Call) -> Fault | None:
        nonlocal count
        if not which(call):
            return None
        count += 1
        if until(count):
            enough.set()
        return fault

    story.rig.traffic.rule = rule
    back = await _lose(story)
    async with asyncio.timeout(CONVERGE_SECONDS):
        await enough.wait()
    story.rig.traffic.rule = lambda _: None
    await story.reached(back, "the Service is back")


async def forbidden(story: Story) -> None:
    """One verb on one kind is forbidden in one namespace; the log says so, the neighbour goes on."""
    here = story.namespace
    await _refused(
        story,
        Fault.FORBID,
        lambda call: (call.verb, call.plural, call.namespace) == ("apply", "services", here),
        lambda count: count >= 1,
    )
    await story.calm()
    assert f"Reconcile of R1PlusDeployment {here}/{NAME} failed: " in story.rig.operator.process.log


async def expired(story: Story) -> None:
    """Every request is refused with 401 until the token in the file is another one."""
    file = story.rig.token
    old, count, enough = file.read_text(), 0, asyncio.Event()

    def rule(call: Call) -> Fault | None:
        nonlocal count
        if call.token != old:
            return None
        count += 1
        if count >= REFUSALS:
            enough.set()
        return Fault.EXPIRE

    story.rig.traffic.rule = rule
    for stream in list(story.rig.proxy.streams):
        stream.end()
    back = await _lose(story)
    async with asyncio.timeout(CONVERGE_SECONDS):
        await enough.wait()
    await write_token(story.rig.client, file)
    await story.reached(back, "the Service is back")


async def outage(story: Story) -> None:
    """Every request but reads is answered 500 for twenty seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + OUTAGE_SECONDS
    await _refused(story, Fault.ERROR, lambda call: call.is_write, lambda _: loop.time() >= end)


async def unreachable(story: Story) -> None:
    """Every connection is reset for twenty seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + OUTAGE_SECONDS
    for stream in list(story.rig.proxy.streams):
        stream.end()
    await _refused(story, Fault.DROP_BEFORE, lambda _: True, lambda _: loop.time() >= end)


async def restarted(story: Story) -> None:
    """kube-apiserver is killed and started again."""
    await asyncio.to_thread(story.rig.server.restart)
    await story.reached(await _lose(story), "the Service is back")


async def away(story: Story) -> None:
    """The operator is dead while a child is deleted."""
    async with story.rig.operator.stopped():
        back = await _lose(story)
    await story.reached(back, "the Service is back")


async def reborn(story: Story) -> None:
    """The CR is deleted and another one made with its name, and the operator never sees the deletion."""
    old = story.cr
    story.lane.point = Point("interlude", f"DELETED r1plusdeployments {NAME}", 1, Fault.SWALLOW)
    for monitors in story.monitors.values():
        monitors.report = None
    story.lane.passed.clear()
    story.ready.clear()
    await story.rig.delete(kinds.R1PLUS_DEPLOYMENT, old)
    await story.deploy(story.case.first)
    await story.calm()
    async with story.kubelet:
        await story.rig.collect(story.namespace, old)
        story.started.clear()
    await story.reached(lambda: story.candidate("") != "" and story.has("Service", NAME), "the new CR has its children")
    await story.calm()
    inherited = {key: story.status[key] for key in ("revision", "verdict", "accuracy") if key in story.status}
    assert not inherited, f"the new deployment has what the old one earned: {inherited}"
    await story.bring_up_candidate("")


async def two_operators(story: Story) -> None:
    """A standby takes over from a leader that was killed, and hands over to one that came back; they write in turn."""
    rig, first = story.rig, story.rig.operator.process
    standby = rig.another_operator("r1plus-operator-1")
    turns = rig.traffic.writers = rig.traffic.writers[-1:]
    standby.start()
    try:
        await eventually(standby.ready, "the standby has synced")
        async with rig.operator.stopped():
            await story.reached(await _lose(story), "the standby has brought the Service back")
        await eventually(first.ready, "the first one is back")
        assert (await first.leads(), await standby.leads()) == (False, True)
        status = await asyncio.to_thread(standby.stop)
        await story.reached(await _lose(story), "the first one has brought the Service back")
    finally:
        standby.kill()
    errors = unexpected_errors(standby.log)
    assert (status, errors) == (0, []), f"the standby ended with {status}: {errors}"
    names = [re.sub(r".*\((.*)_.*", r"\1", agent) for agent in turns]
    assert names == ["r1plus-operator-0", "r1plus-operator-1", "r1plus-operator-0"], f"who wrote, in turn: {names}"


_KOPF = ("kopf", "r1plus_operator: ")
_LOST = (*_KOPF, "lost the Lease: Lease")
_SERVICE = ("services credit",)

HALF_OPEN = Single("half-open streams", half_open, remade=_SERVICE, lasts=SILENT_STREAM_SECONDS)
RESTARTED = Single("API server restarted", restarted, remade=_SERVICE, expected=_LOST, ends=True)
TWO = Single("two operators", two_operators, remade=_SERVICE * 2, lasts=LEASE_SECONDS)
GONE = Single("410 with deletions missed", gone, remade=("*",))
UNREACHABLE = Single(
    "every connection reset for 20 s", unreachable, remade=_SERVICE, expected=_LOST, ends=True, lasts=OUTAGE_SECONDS
)
OUTAGE = Single("500 to every write for 20 s", outage, remade=_SERVICE, lasts=OUTAGE_SECONDS)
REBORN = Single("same name with a new UID", reborn, remade=("*",))
ERRORS = Single("ERROR 500 in every stream", stream_errors, remade=_SERVICE, expected=_KOPF, ends=True)
TRUNCATED = Single("truncated line in every stream", truncated, remade=_SERVICE, expected=_KOPF, ends=True)
EXPIRED = Single("401 until the token is rotated", expired, remade=_SERVICE, expected=_KOPF, ends=True)
FORBIDDEN = Single("403 on one verb", forbidden, remade=_SERVICE)
AWAY = Single("operator away while a child is deleted", away, remade=_SERVICE)
CHAINS = (
    (HALF_OPEN, AWAY, ERRORS, EXPIRED),
    (RESTARTED, TWO, GONE, FORBIDDEN),
    (UNREACHABLE, OUTAGE, REBORN, TRUNCATED),
)
"""Those of a chain share an operator, one after the other; the chains take about as long as each other."""
QUICK = (GONE, FORBIDDEN, AWAY)


async def run(
    made: Rig,
    reference: Reference,
    say: Callable[[str], None],
    chosen: tuple[Single, ...] = QUICK,
    quiet: Quiet = BRIEF,
) -> Result:
    """One after the other, since each concerns everybody; `say` gets a line for each."""
    result = Result()
    for single in chosen:
        found = await run_together(made, reference, (single,), quiet)
        result.add(found)
        say(f"{'NOT survived' if found.failed else 'survived'}: {single.name}")
    return result


async def run_together(
    made: Rig,
    reference: Reference,
    chosen: tuple[Single, ...] = QUICK,
    quiet: Quiet = BRIEF,
    case: Case | None = None,
) -> Result:
    """One after the other as well, but in stories that wait for each other before they go on: in less time.

    Each story is a neighbour of the other faults, and one has none of its own. Raises ValueError for several faults of
    which one may end the operator or explains ERROR lines: the others would be excused as well.
    """
    if len(chosen) > 1 and (unfit := [single.name for single in chosen if single.ends or single.expected]):
        raise ValueError(f"only by itself, since it excuses what the others must not do: {', '.join(unfit)}")
    began, ended = len(made.operator.process.log), len(made.operator.ended)
    # Where the Lease lasts longer, a standby waits longer for it.
    made.outage = max(single.lasts for single in chosen) + made.lease_seconds - LEASE_SECONDS
    turn, to_come, all_over = asyncio.Lock(), list(chosen), asyncio.Event()

    def is_over(single: Single) -> None:
        if single in to_come:
            to_come.remove(single)
        if not to_come:
            all_over.set()

    async def story(single: Single) -> list[str]:
        async def happens(told: Story) -> None:
            async with turn:
                await single.happens(told)
                made.traffic.rule = lambda _: None
            is_over(single)
            await all_over.wait()

        try:
            lane, end = await tell(made, interlude=happens, quiet=quiet, case=case)
        finally:
            is_over(single)
        exact = "*" not in single.remade
        return _judged(lane, end, reference, reference.created + Counter(single.remade), exact=exact)

    (neighbour, other), *found = await asyncio.gather(
        tell(made, quiet=quiet, case=case), *(story(single) for single in chosen)
    )
    made.traffic.rule = lambda _: None
    expected = [text for single in chosen for text in single.expected]
    shared = [f"neighbour: {p}" for p in _judged(neighbour, other, reference, reference.created, exact=True)]
    shared += unexpected_errors(made.operator.process.log[began:], expected)[:10]
    if len(made.operator.ended) > ended and not any(single.ends for single in chosen):
        shared.append(f"the operator ended by itself with {made.operator.ended[ended:]}")
    problems = [(single.name, own + shared) for single, own in zip(chosen, found, strict=True) if own + shared]
    return Result(survived=len(chosen) - len(problems), failed=problems)


def _judged(lane: Lane, end: Json | None, reference: Reference, created: Counter[str], *, exact: bool) -> list[str]:
    """`exact`: what was created is compared as well."""
    if end is None:
        return lane.problems
    counted = created if exact else lane.created
    return oracle.judge(lane, end, reference.end, counted, reference.deleted)
