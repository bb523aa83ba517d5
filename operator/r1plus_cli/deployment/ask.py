"""`r1plus ask`: one question to a deployment, and what the answer cost."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.cluster.interface import Cluster
from r1plus_cli.deployment.view import DeploymentView, build_view
from r1plus_cli.errors import CliError
from r1plus_cli.options import KubeconfigOption, NamespaceOption, write_at_once
from r1plus_contract.names import PORT_GRPC

if TYPE_CHECKING:
    from r1plus_cli.deployment.stream import Answer, Question


def ask_command(
    name: Annotated[str, typer.Argument(help="The R1PlusDeployment to ask.")],
    prompt: Annotated[str, typer.Argument(help="The question; - reads standard input.")],
    namespace: NamespaceOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 128,
    temperature: Annotated[float | None, typer.Option(help="0 (the default) is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling, in (0, 1].")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 discourages repetition.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of Triton's gRPC, if you can reach it; no port is forwarded.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the whole answer.")] = 60.0,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Ask a deployment one question; the answer streams, then its cost: tokens/s and time to first token.

    Forwards a port to a pod of the deployment's Service, like `kubectl port-forward`.
    """
    # Late: gRPC and numpy would double the start time of `plan` and `validate`.
    from r1plus_cli.deployment.stream import Question, ask

    text = sys.stdin.read() if prompt == "-" else prompt
    question = Question(text, system, max_new_tokens, temperature, top_p, repetition_penalty, seed)
    with end_last_line(write_at_once) as write:
        if address is not None:
            engine, answer = "", ask(address, question, timeout_s=timeout, on_text=write)
        else:
            cluster = connect(kubeconfig)
            space = namespace or cluster.get_default_namespace()
            view, answer = ask_deployment(cluster, space, name, question, timeout, write)
            engine = f"{view.engine}: " if view.engine else ""
    Console(stderr=True, soft_wrap=True).print(
        Text(f"{engine}{answer.format_figures()} ({answer.finish_reason})", style="dim")
    )


def ask_deployment(
    cluster: Cluster, namespace: str, name: str, question: "Question", timeout_s: float, on_text: Callable[[str], None]
) -> tuple[DeploymentView, "Answer"]:
    """Ask through a forwarded port of the deployment's Service. Raise CliError if nothing can answer."""
    from r1plus_cli.deployment.stream import ask

    view = build_view(cluster.get_deployment(namespace, name))
    if not view.revision:
        raise CliError(
            f"{view.key}: no revision takes traffic yet: {view.format_headline()}; see: r1plus status {name}"
            f" -n {namespace}"
        )
    with cluster.forward(namespace, name, PORT_GRPC) as address:
        return view, ask(address, question, timeout_s=timeout_s, on_text=on_text)


@contextlib.contextmanager
def end_last_line(write: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Write pieces as they arrive, and end the last line in any case."""
    has_output = False

    def write_piece(text: str) -> None:
        nonlocal has_output
        has_output = True
        write(text)

    try:
        yield write_piece
    finally:
        if has_output:
            write("\n")
