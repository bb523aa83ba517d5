"""`r1plus ask`: one question to a deployment, and what the answer cost."""

import contextlib
from collections.abc import Callable, Iterator

from r1plus_cli.cluster.interface import Cluster
from r1plus_cli.deployment.stream import Answer, Question, ask
from r1plus_cli.deployment.view import DeploymentView, build_view
from r1plus_cli.errors import CliError
from r1plus_contract.names import PORT_GRPC


def ask_deployment(
    cluster: Cluster, namespace: str, name: str, question: Question, timeout_s: float, on_text: Callable[[str], None]
) -> tuple[DeploymentView, Answer]:
    """Ask through a forwarded port of the deployment's Service. Raise CliError if nothing can answer."""
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
