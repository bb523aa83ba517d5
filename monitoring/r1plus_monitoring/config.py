"""Where the monitor finds its inputs: flags, then the environment, then the contract's paths. Read by both programs."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract import names

ENV_LISTEN_FD: Final = "R1PLUS_MONITOR_LISTEN_FD"
"""Variable by which the supervisor, or who starts it, passes its socket on."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; nothing else in this package reads the environment."""

    accuracy_dir: Path
    revision_dir: Path
    admission_dir: Path
    state_dir: Path
    triton_http: str
    """Host and port of Triton's HTTP endpoint, in the same pod; or `unix:PATH`, as for the next two."""
    triton_grpc: str
    triton_metrics: str
    """Host and port of the endpoint that reports how many requests wait."""
    host: str
    port: int
    listen_fd: int | None
    """Descriptor of a socket that listens already; None: the prober opens one."""
    service: str
    """Host and port of the deployment's Service; empty: as the settings name it."""
    request_timeout: float
    """Seconds until an unanswered probe counts as failed."""
    poll_interval: float
    """Seconds between looks at the mounted files and at a model that is not ready."""
    identity: str
    namespace: str
    deployment: str
    revision: str
    pod: str


def read_config(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Config:
    """Parse flags; each falls back to `R1PLUS_MONITOR_<FLAG>`, then to its default. argparse exits 2 on bad flags."""
    parser = argparse.ArgumentParser(prog="r1plus-monitor", description="Gates and watches the engine in its pod.")

    def flag(name: str, default: str, meaning: str) -> None:
        fallback = environ.get(f"R1PLUS_MONITOR_{name.upper().replace('-', '_')}", default)
        parser.add_argument(f"--{name}", default=fallback, help=f"{meaning} (default {fallback})")

    flag("accuracy-dir", names.DIR_ACCURACY, "settings, suite and known verdicts")
    flag("revision-dir", names.DIR_REVISION, "identity.json")
    flag("admission-dir", names.DIR_ADMISSION, "where the admission token goes")
    flag("state-dir", names.DIR_STATE, "what survives a restart of the prober")
    flag("triton-http", f"127.0.0.1:{names.PORT_HTTP}", "Triton's HTTP endpoint")
    flag("triton-grpc", f"127.0.0.1:{names.PORT_GRPC}", "Triton's gRPC endpoint")
    flag("triton-metrics", f"127.0.0.1:{names.PORT_TRITON_METRICS}", "Triton's metrics endpoint")
    flag("host", "0.0.0.0", "address to serve /verdict and /metrics on")
    flag("port", str(names.PORT_MONITOR), "port to serve them on")
    flag("listen-fd", "", "descriptor of a socket that listens there already; the supervisor passes it")
    flag("service", "", "host and port of the deployment's Service, where no name service has the settings' name")
    flag("request-timeout", "60", "seconds to wait for each piece of an answer; the whole may take three times as long")
    flag("poll-interval", "2", "seconds between looks at mounted files")
    arguments = parser.parse_args(argv)
    return Config(
        accuracy_dir=Path(arguments.accuracy_dir),
        revision_dir=Path(arguments.revision_dir),
        admission_dir=Path(arguments.admission_dir),
        state_dir=Path(arguments.state_dir),
        triton_http=arguments.triton_http,
        triton_grpc=arguments.triton_grpc,
        triton_metrics=arguments.triton_metrics,
        host=arguments.host,
        port=int(arguments.port),
        listen_fd=int(arguments.listen_fd) if arguments.listen_fd else None,
        service=arguments.service,
        request_timeout=float(arguments.request_timeout),
        poll_interval=float(arguments.poll_interval),
        identity=environ.get(names.ENV_IDENTITY, ""),
        namespace=environ.get(names.ENV_NAMESPACE, ""),
        deployment=environ.get(names.ENV_DEPLOYMENT, ""),
        revision=environ.get(names.ENV_REVISION, ""),
        pod=environ.get(names.ENV_POD, ""),
    )
