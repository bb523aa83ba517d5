"""Steps 4 to 6 of the demo: three tiers served, asked, and a regression refused and then caught."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from e2e import story
from e2e.asking import Asker
from e2e.demo.telling import INDENT, Teller
from e2e.story import Name
from e2e.target import Target
from e2e.waiting import StoryError, wait_for
from r1plus_cli import history_text
from r1plus_cli.status import format_cells
from r1plus_cli.view import COLUMNS, QUALITY, READY
from r1plus_contract.names import PORT_GRPC
from r1plus_contract.plain_text import to_printable

QUESTIONS = (
    "What is the capital of Sweden?",
    "Name three primary colours.",
    "Write one sentence about the sea.",
)
LEAST_ASKED = 5
"""Questions that show that traffic stayed, where the gate refuses at once because it has refused before."""
QUIET = {"spec": {"accuracy": {"probesPerMinute": 6}}}
"""The example probes ten times a second, so that nobody waits; left at that it would keep two cores busy for ever."""


@contextmanager
def quiet_again(target: Target, full: Name, teller: Teller) -> Iterator[None]:
    """However the block ends, nobody is left with an example that probes ten times a second."""
    try:
        yield
    except KeyboardInterrupt:
        story.apply(target.kube, story.FULL)
        teller.line(f"{full} is put back to {story.FULL.name}")
        raise
    except Exception:
        target.kube.patch("r1plusdeployments", full.namespace, full.name, QUIET)
        raise
    target.kube.patch("r1plusdeployments", full.namespace, full.name, QUIET)
    teller.line("Probing at its ordinary rate again; the alert stands as long as this engine serves")


def serve(target: Target, names: Sequence[Name], teller: Teller) -> None:
    """Apply the tenants and the three tiers; show them become Ready."""
    teller.line("smollm2 stands in for R1+: one set of weights in three precisions plays the three sizes.")
    story.apply(target.kube, story.TENANTS)
    story.apply(target.kube, story.FULL, story.LITE, story.EDGE)
    teller.line(f"{'TIME':>6}  {format_cells(COLUMNS)}  STATE")
    story.until_ready(target.kube, names, teller.change)


def ask_each(target: Target, names: Sequence[Name], teller: Teller) -> None:
    """One question each, streamed, with its cost."""
    for name, question in zip(names, QUESTIONS, strict=True):
        teller.line(f"{name}: {question}")
        teller.piece(INDENT)
        answer = story.ask_through_service(target, name, question, on_text=teller.piece)
        teller.end_of_answer()
        teller.line(answer.format_figures())
        if not answer.text.strip():
            raise StoryError(f"{name} answered nothing ({answer.finish_reason})")


def refuse(target: Target, full: Name, teller: Teller) -> None:
    """Ask for smollm2-full-q4-1: the gate says no, and a client that asks all the time notices nothing."""
    before, since = story.serving_revision(target.kube, full), time.time()
    teller.line(f"{full} serves from {before}; now asking for smollm2-full-q4-1, the same weights in Q4_1")
    with target.reach(full.namespace, full.name, PORT_GRPC) as address, Asker(address, pause_s=1.0) as asker:
        story.apply(target.kube, story.FULL_Q4)
        seen = story.follow(target.kube, [full], story.refused, f"the gate refuses {full}", teller.change)
        wait_for(lambda: asker.asked >= LEAST_ASKED, f"{LEAST_ASKED} questions are asked", seconds=story.GATE_SECONDS)
    after = story.serving_revision(target.kube, full)
    told = seen[full].condition(QUALITY)
    decided = story.decided_at(target.kube, full, seen[full].candidate)
    again = f" before, at {decided}, and not gated again" if decided and story.epoch(decided) < since else ""
    teller.line(f"Refused{again}: {told.message if told else ''}")
    teller.line(f"Traffic {'stayed at' if after == before else 'went to'} {after}: {asker.summary()}")
    if after != before or asker.failures:
        raise StoryError(f"Traffic moved or was dropped: {before} -> {after}; {asker.summary()}")


def observe(target: Target, full: Name, teller: Teller) -> None:
    """Force it through with gate: Observe; the monitor's own probes raise the alert."""
    before, since = story.serving_revision(target.kube, full), time.time()
    teller.line("Forcing it through with accuracy.gate: Observe, and probing ten times a second to see the alert soon")
    with quiet_again(target, full, teller):
        story.apply(target.kube, story.FULL_Q4_OBSERVE)
        story.follow(
            target.kube,
            [full],
            lambda one: one.status_of(READY) == "True" and one.up_to_date and one.revision not in ("", before),
            f"{full} serves the other engine",
            teller.change,
        )
        alert = story.until_alert(target, full, since, teller.change)
        teller.line(f"Alertmanager has {alert.name} ({alert.labels.get('severity', '')}), since {alert.starts_at}")
        teller.line(f"{alert.summary}. {alert.description}")


def recall(target: Target, full: Name, teller: Teller) -> None:
    """What the registry has kept of the revision that was refused and then forced through, as `r1plus history` says."""
    revision = story.serving_revision(target.kube, full)
    history = story.recorded(target.kube, full, revision)
    teller.line(f"What the registry has kept of {revision}: r1plus history {full.name} -n {full.namespace}")
    for at, name, text, _ in history_text.list_events(history):
        if name == revision:
            teller.line(f"{at[:19]}  {to_printable(text)}")
