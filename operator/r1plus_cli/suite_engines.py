"""Which engine `r1plus suite` asks: served at an address, served by a deployment of a cluster, or a folder here."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1plus_cli.cluster import Cluster
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.suite_build import Source
from r1plus_contract.names import PORT_GRPC, PORT_HTTP
from r1plus_contract.suite import Sampling
from r1plus_monitoring.curate.asking import ProcessAsker
from r1plus_monitoring.curate.served import ServedAsker


@dataclass(frozen=True, slots=True)
class Engines:
    """What the options say; several are asked one after the other, and an item must be right in all."""

    addresses: Sequence[str] = ()
    """`HTTP,GRPC` of Triton, each host:port."""
    deployment: str | None = None
    folders: Sequence[Path] = ()


@contextlib.contextmanager
def sources(
    engines: Engines,
    sampling: Sampling,
    connect: Callable[[], Cluster],
    namespace: str | None,
    answered: Callable[[], None],
) -> Iterator[tuple[Source, ...]]:
    """Askers of all of them, while the context is open. What an engine refuses inside becomes a CliError."""
    pairs = [_pair(address) for address in engines.addresses]
    with contextlib.ExitStack() as stack:
        if engines.deployment:
            cluster = connect()
            space = namespace or cluster.default_namespace()
            http, grpc = (
                stack.enter_context(cluster.forward(space, engines.deployment, port)) for port in (PORT_HTTP, PORT_GRPC)
            )
            pairs.append((http, grpc))
        found = [Source(ServedAsker(http, grpc, sampling, answered)) for http, grpc in pairs]
        for folder in engines.folders:
            if not folder.is_dir():
                raise UsageError(f"--engine-dir {folder}: no such folder")
            found.append(Source(ProcessAsker(folder, sampling), folder))
        if not found:
            raise UsageError("No engine to ask: give --served HTTP,GRPC, --deployment NAME or --engine-dir DIR")
        try:
            yield tuple(found)
        except RuntimeError as error:
            raise CliError(f"The engine gave no answer: {error}; is its address right and the model ready?") from error


def _pair(address: str) -> tuple[str, str]:
    http, comma, grpc = address.partition(",")
    if not comma or not all(":" in part.strip(":") for part in (http, grpc)):
        raise UsageError(f"--served: {address!r} is not HTTP,GRPC such as 127.0.0.1:8000,127.0.0.1:8001")
    return http.strip(), grpc.strip()
