"""The engine that `r1plus suite` asks: at an address, in a deployment of a cluster, or in a local folder."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1plus_cli.cluster.interface import Cluster
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.suite.build import AnswerSource
from r1plus_contract.names import PORT_GRPC, PORT_HTTP
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_monitoring.curate.asking import ProcessAsker
from r1plus_monitoring.curate.served import ServedAsker


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Engines from the options. Several are asked one after the other, and an item must be right in all."""

    addresses: Sequence[str] = ()
    """`HTTP,GRPC` of Triton, each host:port."""
    deployment: str | None = None
    folders: Sequence[Path] = ()


@contextlib.contextmanager
def open_sources(
    engines: EngineOptions,
    sampling: SuiteSampling,
    connect: Callable[[], Cluster],
    namespace: str | None,
    on_answer: Callable[[], None],
) -> Iterator[tuple[AnswerSource, ...]]:
    """Yield the engines' askers while the context is open. Errors of an engine become CliError."""
    pairs = [_parse_pair(address) for address in engines.addresses]
    with contextlib.ExitStack() as stack:
        if engines.deployment:
            cluster = connect()
            space = namespace or cluster.get_default_namespace()
            http, grpc = (
                stack.enter_context(cluster.forward(space, engines.deployment, port)) for port in (PORT_HTTP, PORT_GRPC)
            )
            pairs.append((http, grpc))
        sources = [AnswerSource(ServedAsker(http, grpc, sampling, on_answer)) for http, grpc in pairs]
        for folder in engines.folders:
            if not folder.is_dir():
                raise UsageError(f"--engine-dir {folder}: no such folder")
            sources.append(AnswerSource(ProcessAsker(folder, sampling), folder))
        if not sources:
            raise UsageError("No engine to ask: give --served HTTP,GRPC, --deployment NAME or --engine-dir DIR")
        try:
            yield tuple(sources)
        except RuntimeError as error:
            raise CliError(
                f"The engine did not answer: {error}; check its address and that the model is ready"
            ) from error


def _parse_pair(address: str) -> tuple[str, str]:
    http, comma, grpc = address.partition(",")
    if not comma or not all(":" in part.strip(":") for part in (http, grpc)):
        raise UsageError(f"--served: {address!r} is not HTTP,GRPC such as 127.0.0.1:8000,127.0.0.1:8001")
    return http.strip(), grpc.strip()
