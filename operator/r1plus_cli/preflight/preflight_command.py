"""`r1plus preflight`: reads a cluster, shows what r1plus lacks there, and writes the chart's values for it."""

import sys
import textwrap
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.engine.output import say
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, open_console, print_table
from r1plus_cli.preflight.checks import find_worst, run_checks
from r1plus_cli.preflight.network_probe import NETWORK_CHECK
from r1plus_cli.preflight.network_proof import prove_network
from r1plus_cli.preflight.observer import observe
from r1plus_cli.preflight.outcome import CheckLevel, CheckOutcome, ClusterCheck
from r1plus_cli.preflight.values_file import DEFAULT_PATH, check_writable, write_values
from r1plus_contract.jsonable import dumps

_COLUMNS = ("CHECK", "RESULT", "SEEN")
_WIDTH = 110
_STYLES = {CheckLevel.OK: "green", CheckLevel.WARN: "yellow", CheckLevel.FAIL: "red"}
Results = Sequence[tuple[ClusterCheck, CheckOutcome]]


class PreflightFormat(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


def preflight_command(
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Namespace of the release, which need not exist.")
    ] = "r1plus-system",
    output: Annotated[
        PreflightFormat, typer.Option("-o", "--output", help="table for people; json for programs.")
    ] = PreflightFormat.TABLE,
    values: Annotated[
        Path, typer.Option("--values", help="File to write the chart's values to, for helm install -f.")
    ] = DEFAULT_PATH,
    image: Annotated[
        str, typer.Option("--image", help="r1plus-monitor where nodes pull from. Default: that of the release.")
    ] = "",
    skip_network: Annotated[
        bool, typer.Option("--skip-network", help="Start no pods: whether NetworkPolicies are enforced is not proven.")
    ] = False,
    no_values: Annotated[bool, typer.Option("--no-values", help="Write no file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that a person made or changed.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Check whether a cluster has what r1plus needs, before it is installed, and write the chart's values for it.

    Each check says what was seen, why that matters and what to do. The file has what this cluster needs otherwise than
    the chart's defaults, each value with its reason.

    It reads the cluster with your kubeconfig. To prove that NetworkPolicies are enforced it starts five small pods in
    namespace `r1plus-preflight`, and removes it again; `--skip-network` leaves that out and changes nothing.

    Exit status 0: r1plus can be installed; warnings are allowed. 1: something has to be changed first. 2: the
    arguments are wrong, or the cluster does not answer.

    Example: `r1plus preflight --image registry.bank.example/r1plus/r1plus-monitor:0.1.0`
    """
    if not no_values and not force:
        check_writable(values)
    results = _run(kubeconfig, namespace, image, may_start_pods=not skip_network)
    if output is PreflightFormat.JSON:
        sys.stdout.write(dumps(build_document(results)) + "\n")
    else:
        show_results(open_console(), results)
    if not no_values:
        write_values(values, [value for _, outcome in results for value in outcome.values])
        say(f"{values}: written; use it with helm install -f {values}", style="dim")
    raise typer.Exit(1 if find_worst(outcome for _, outcome in results) is CheckLevel.FAIL else 0)


def build_document(results: Results) -> dict[str, object]:
    """Return the document for `-o json`."""
    return {
        "result": find_worst(outcome for _, outcome in results).value,
        "checks": [
            {
                "name": check.name,
                "result": outcome.level.value,
                "seen": outcome.seen,
                "why": check.why,
                "remedy": outcome.remedy,
                "values": {value.path: value.value for value in outcome.values},
            }
            for check, outcome in results
        ],
    }


def show_results(console: Console, results: Results) -> None:
    """Print a line per check, what to do about those that are not OK, and a summary."""
    print_table(_COLUMNS, [(check.name, outcome.level.value, outcome.seen) for check, outcome in results])
    for check, outcome in results:
        if outcome.level is not CheckLevel.OK:
            head = f"{check.name}: {outcome.level.value}"
            console.print(Text(f"\n{head}", style=_STYLES[outcome.level]))
            for line in (f"Why: {check.why}.", f"To do: {outcome.remedy}."):
                wrapped = textwrap.fill(runnable_hint(line), _WIDTH, initial_indent="  ", subsequent_indent="  ")
                console.print(Text(wrapped))
    levels = [outcome.level for _, outcome in results]
    failed, warned = levels.count(CheckLevel.FAIL), levels.count(CheckLevel.WARN)
    text = f"this cluster is {'not ready yet' if failed else 'ready'} for r1plus"
    style = _STYLES[find_worst(outcome for _, outcome in results)]
    console.print(Text(f"\n{text}: {len(levels)} checks, {failed} failed, {warned} with a warning", style=style))


def _run(kubeconfig: str | None, namespace: str, image: str, *, may_start_pods: bool) -> Results:
    """Run all checks. Raise UsageError if no cluster answers: status 1 says that the cluster has to be changed."""
    try:
        api = connect(kubeconfig).open_raw_api()
        view = observe(api, namespace)
        results = run_checks(view)
        if may_start_pods:
            outcome = prove_network(api, view, image, lambda text: say(text, style="dim"))
        else:
            outcome = NETWORK_CHECK.judge(view)
    except CliError as error:
        raise UsageError(str(error)) from error
    return [*results, (NETWORK_CHECK, outcome)]
