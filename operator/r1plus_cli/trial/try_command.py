"""`r1plus try`: a first answer, a first refusal, and nothing left."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli.cluster.connection import connect
from r1plus_cli.engine.output import report_progress, say
from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, parse_duration
from r1plus_cli.trial.lost_items import Refusal
from r1plus_cli.trial.manifests import DEPLOYMENT
from r1plus_cli.trial.trial import QUESTION, Started, Trial

NAMESPACE = "r1plus-try"
EXPORT = Path("r1plus-try-key.json")


def try_command(
    is_break: Annotated[
        bool, typer.Option("--break", help="Ask for the same weights in Q4_1, and see them refused.")
    ] = False,
    is_remove: Annotated[bool, typer.Option("--remove", help="Delete all that the trial made.")] = False,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace, which the trial makes.")] = NAMESPACE,
    export: Annotated[
        Path, typer.Option("--export", help="New file for half of the tenant's key; --remove deletes it.")
    ] = EXPORT,
    timeout: Annotated[str, typer.Option("--timeout", help="Longest wait of each step, such as 20m.")] = "20m",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Try an installed r1plus: a tenant, a model that passes its gate, an answer through the gateway.

    1. `r1plus try`: makes a namespace with a tenant and the deployment `hello`, waits for its gate, asks a question,
       and prints the address, a key and a curl line
    2. `r1plus try --break`: the same weights in Q4_1 are refused, with items that they lost; the good one goes on
    3. `r1plus try --remove`: the namespace goes, with all that is in it

    It needs the rights of a platform team: it makes a namespace. Run a command again if it was cut off; it goes on.
    Exit status 0: it went as described. 1: it did not, and the message says why. 2: the arguments are wrong.
    """
    if is_break and is_remove:
        raise UsageError("--break and --remove: give one of them")
    seconds = parse_duration("--timeout", timeout)
    trial = Trial(connect(kubeconfig), namespace, seconds, lambda line: report_progress(runnable_hint(line)))
    if is_remove:
        was_there = trial.remove(export)
        say(f"Namespace {namespace} {'and all in it are gone' if was_there else 'is not there: nothing to remove'}")
    elif is_break:
        _print_break(trial)
    else:
        _print_start(trial.start(export), namespace)


def _print_start(started: Started, namespace: str) -> None:
    view = started.outcome.view
    if view is not None:
        say(f"{view.key} passed its gate: {view.accuracy} right, threshold {view.threshold}", style="green")
    body = f'{{"model": "{DEPLOYMENT}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
    lines = [
        f"Question  {QUESTION}",
        f"Answer    {started.answer}",
        f"Address   http://gateway.{namespace}.svc/v1, inside the cluster",
        f"Key       {started.key}",
        "",
        "The key ends in 7 days, and is not shown again. From this machine:",
        f"kubectl port-forward -n {namespace} service/gateway 8080:80 &",
        "curl -s http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\",
        f"  -H 'Authorization: Bearer {started.key}' -d '{body}'",
        "",
        "Next: r1plus try --break",
    ]
    sys.stdout.write(runnable_hint("\n".join(lines)) + "\n")


def _print_break(trial: Trial) -> None:
    outcome, refusal = trial.spoil()
    say(f"Refused: {outcome.reason}: {outcome.message}", style="yellow")
    answer = trial.answer_again()
    lines = [*_format_refusal(refusal), "", "The revision that passed goes on:", f"  {QUESTION}  {answer}", ""]
    lines.append("Next: r1plus try goes back to it, r1plus try --remove removes all")
    sys.stdout.write(runnable_hint("\n".join(lines)) + "\n")


def _format_refusal(refusal: Refusal | None) -> list[str]:
    if refusal is None:
        return ["Its revision is gone already, and with it the list of items that it lost."]
    lines = [f"{refusal.revision} lost {refusal.lost} of {refusal.items} items, such as:"]
    for item in refusal.examples:
        prompt = " ".join(item.prompt.split())
        lines.append(f"  {item.id}: {prompt}  (right: {item.answer})" if prompt else f"  {item.id}")
    return lines
