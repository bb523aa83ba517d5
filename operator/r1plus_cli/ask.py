"""`r1plus ask`: one question to a deployment, and what the answer cost."""

import contextlib
from collections.abc import Callable, Iterator

from r1plus_cli.cluster import Cluster
from r1plus_cli.errors import CliError
from r1plus_cli.stream import Answer, Question, ask
from r1plus_cli.view import DeploymentView, view_of
from r1plus_contract.names import PORT_GRPC


def ask_deployment(
    cluster: Cluster, namespace: str, name: str, question: Question, timeout_s: float, on_text: Callable[[str], None]
) -> tuple[DeploymentView, Answer]:
    """Ask through a forwarded port of the deployment's Service; CliError says why when that cannot be."""
    view = view_of(cluster.deployment(namespace, name))
    if not view.revision:
        raise CliError(
            f"{view.key}: no revision takes traffic yet: {view.headline()}; see: r1plus status {name} -n {namespace}"
        )
    with cluster.forward(namespace, name, PORT_GRPC) as address:
        return view, ask(address, question, timeout_s=timeout_s, on_text=on_text)


@contextlib.contextmanager
def paced(write: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Print pieces as they arrive, and end the line that was begun, whatever happens."""
    begun = False

    def begin(text: str) -> None:
        nonlocal begun
        begun = True
        write(text)

    try:
        yield begin
    finally:
        if begun:
            write("\n")
