"""How gRPC's library reads its connections in a process of ours that asks an engine."""

from collections.abc import MutableMapping
from typing import Final

ENV_EXPERIMENTS: Final = "GRPC_EXPERIMENTS"
WITHOUT_EVENT_ENGINE: Final = "-event_engine_client"


def configure_grpc(environ: MutableMapping[str, str]) -> None:
    """Let the thread that waits for responses read the connections itself. Call this before gRPC is imported.

    By default gRPC's event engine reads them, and hands each response from thread to thread, which costs a fifth of
    the gateway's processor time (docs/reference/gateway-settings.md). Its threads also look for work some twelve
    times after each response. A value that is set already stays. A gRPC that does not know the name any more logs
    that, and works as by default.
    """
    environ.setdefault(ENV_EXPERIMENTS, WITHOUT_EVENT_ENGINE)
