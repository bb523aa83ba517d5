"""Steps 4, 5 and 7 of the demo: three tiers served, asked, and a regression refused and then caught."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from e2e import gateways, story
from e2e.demo.families import Family
from e2e.demo.telling import INDENT, Teller
from e2e.gateways import ApiKey, GatewayAsker
from e2e.story import Name
from e2e.target import Target
from e2e.waiting import StoryError, wait_for
from r1plus_cli.deployment.status_text import format_cells
from r1plus_cli.deployment.view import COLUMNS, QUALITY, READY
from r1plus_contract.plain_text import to_printable
from r1plus_history import text as history_text

QUESTIONS = ("Name three primary colours.", "Write one sentence about the sea.")
"""For the second and the third deployment."""
ASK_SCRIPT: Final = story.EXAMPLES / "ask.py"
KEY_OPTIONS: Final = ("--model", "credit", "--budget", "200000", "--expires", "30d")
CURL: Final = """\
curl -sSi "$OPENAI_BASE_URL/chat/completions" -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "credit", "messages": [{"role": "user", "content": "Name three primary colours."}]}'
"""
SHOWN_HEADERS: Final = ("http/", "x-r1plus-", "x-ratelimit-", "x-request-id")
"""Of those that curl prints."""
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


def serve(target: Target, family: Family, names: Sequence[Name], teller: Teller) -> None:
    """Apply the tenants and the three tiers; show them become Ready."""
    teller.line(family.introduction)
    gateways.apply_tenants(target.kube, teller.line)
    story.apply(target.kube, story.FULL, story.LITE, story.EDGE)
    teller.line(f"{'TIME':>6}  {format_cells(COLUMNS)}  STATE")
    story.until_ready(target.kube, names, teller.change)


def ask_each(target: Target, names: Sequence[Name], teller: Teller) -> ApiKey:
    """One question each; the first tenant's by its gateway, with a new key, which is returned."""
    full, *others = names
    key = ask_gateway(target, full, teller)
    for name, question in zip(others, QUESTIONS, strict=True):
        teller.line(f"Over gRPC: {name}: {question}")
        teller.piece(INDENT)
        answer = story.ask_through_service(target, name, question, on_text=teller.piece)
        teller.end_of_answer()
        teller.line(answer.format_figures())
        if not answer.text.strip():
            raise StoryError(f"{name} answered nothing ({answer.finish_reason})")
    return key


def ask_gateway(target: Target, full: Name, teller: Teller) -> ApiKey:
    """Make a key, and ask with OpenAI's client and with curl, as a person would after pasting what is printed."""
    gateways.until_ready(target.kube, full.namespace, teller.change)
    teller.line(f"  .venv/bin/r1plus key create demo {' '.join(KEY_OPTIONS)} -n {full.namespace}")
    key = gateways.create_key(target.kube, full.namespace, "demo", *KEY_OPTIONS)
    teller.line(key.note)
    with gateways.reach(target, full.namespace) as url:
        with gateways.open_client(url, key.secret) as client:
            gateways.until_verified(client, target.kube, full)
        teller.line("For a shell of your own, from this folder:")
        teller.line(f"  export OPENAI_BASE_URL={url}")
        teller.line(f"  export OPENAI_API_KEY={key.secret}")
        environment = build_environment(url, key)
        script = ASK_SCRIPT.relative_to(story.EXAMPLES.parent)
        teller.line(f"With OpenAI's client: .venv/bin/python {script}")
        show_lines(ASK_SCRIPT.read_text().split('"""\n\n', 1)[1], teller)
        show_lines(run_command(environment, sys.executable, str(ASK_SCRIPT)), teller, ">>> ")
        teller.line("With curl, of whose headers these are shown:")
        show_lines(CURL, teller)
        show_answer(run_command(environment, "bash", "-c", CURL), teller)
    return key


def build_environment(url: str, key: ApiKey) -> dict[str, str]:
    """Return what the examples read."""
    return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": key.secret, "NO_PROXY": "127.0.0.1"}


def run_command(environment: Mapping[str, str], *command: str) -> str:
    """Return what the command prints; raise StoryError if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
    )
    if done.returncode != 0:
        raise StoryError(f"{command[0]} exited {done.returncode}: {done.stderr.strip()[-1500:]}")
    return done.stdout


def show_lines(text: str, teller: Teller, prefix: str = "  ") -> None:
    for row in text.rstrip().splitlines():
        teller.line(f"{prefix}{to_printable(row)}")


def show_answer(printed: str, teller: Teller) -> None:
    """Show what `curl -i` printed; raise StoryError unless it is an answer."""
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    rows = [row for row in head.splitlines() if row.lower().startswith(SHOWN_HEADERS)]
    show_lines("\n".join([*rows, body]), teller, ">>> ")
    if not json.loads(body).get("choices"):
        raise StoryError(f"curl got no answer: {printed}")


def refuse(target: Target, family: Family, full: Name, key: ApiKey, teller: Teller) -> None:
    """Ask for the same weights in Q4_1: the gate says no, and a client that asks the gateway all the time notices nothing."""
    before, since = story.serving_revision(target.kube, full), time.time()
    teller.line(f"{full} serves from {before}; now asking for {family.regression}, the same weights in Q4_1")
    with (
        gateways.reach(target, full.namespace) as url,
        GatewayAsker(url, pause_s=1.0, key=key.secret, model=full.name) as asker,
    ):
        story.apply(target.kube, story.FULL_Q4)
        seen = story.follow(target.kube, [full], story.refused, f"the gate refuses {full}", teller.change)
        wait_for(lambda: asker.asked >= LEAST_ASKED, f"{LEAST_ASKED} questions are asked", seconds=story.GATE_SECONDS)
    after = story.serving_revision(target.kube, full)
    told = seen[full].condition(QUALITY)
    decided = story.decided_at(target.kube, full, seen[full].candidate)
    again = f" before, at {decided}, and not gated again" if decided and story.epoch(decided) < since else ""
    teller.line(f"Refused{again}: {told.message if told else ''}")
    teller.line(
        f"Traffic {'stayed at' if after == before else 'went to'} {after}; through the gateway: {asker.summary()}"
    )
    if after != before or asker.failures:
        raise StoryError(f"Traffic moved or was dropped: {before} -> {after}; {asker.summary()}")
    if asker.revisions != {before}:
        raise StoryError(f"Not every answer was of {before}: {asker.summary()}")


def observe(target: Target, full: Name, key: ApiKey, teller: Teller) -> None:
    """Force it through with gate: Observe; the monitor's own probes raise the alert, and every answer says so."""
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
    with gateways.reach(target, full.namespace) as url, gateways.open_client(url, key.secret) as client:
        reply = gateways.until_verified(client, target.kube, full)
    teller.line(f"Who asks the gateway now sees it: x-r1plus-revision {reply.evidence.revision}")
    teller.line(f"  x-r1plus-verdict: {reply.evidence.verdict}")


def recall(target: Target, full: Name, teller: Teller) -> None:
    """What the registry has kept of the revision that was refused and then forced through, as `r1plus history` says."""
    revision = story.serving_revision(target.kube, full)
    history = story.recorded(target.kube, full, revision)
    teller.line(f"What the registry has kept of {revision}: r1plus history {full.name} -n {full.namespace}")
    for at, name, text, _ in history_text.list_events(history):
        if name == revision:
            teller.line(f"{at[:19]}  {to_printable(text)}")
