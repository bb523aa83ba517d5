"""How tritonserver is started in a serving pod: what it may do, and what of it whoever may call can call.

Callers are let in by the walls, and nobody asks them who they are. So of Triton's APIs only inference and health are
open (metrics have a port of their own): of the others, logging writes what passes through into the log, and shared
memory reads and writes what the backend's processes tell each other. `model-control-mode=none` refuses loads by itself.
"""

from r1plus_contract import names
from r1plus_operator.plan.observation import Json

EXIT_TIMEOUT_SECONDS = 30
RESTRICTED = ("metadata", "shared-memory", "model-config", "model-repository", "statistics", "trace", "logging")
"""Triton's names for its APIs, without `health` and `inference`; the same over HTTP and gRPC."""
KEY = "r1plus-nobody"
"""Header that opens them (over gRPC `triton-grpc-protocol-r1plus-nobody`), for whoever knows its value."""
GUARDED = (
    "--model-control-mode=none",
    "--disable-auto-complete-config",
    "--strict-readiness=true",
    f"--exit-timeout-secs={EXIT_TIMEOUT_SECONDS}",
    "--allow-gpu-metrics=false",
    "--log-verbose=0",
)
"""What is not named is off: response cache, tracing, SageMaker's and Vertex AI's ports (see `START`)."""
START = f"""\
unset AIP_MODE
key=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')
[ ${{#key}} = 64 ] || {{ echo "there is no randomness for the key of Triton's restricted APIs"; exit 1; }}
restricted={",".join(RESTRICTED)}:{KEY}=$key
exec "$0" "$@" "--http-restricted-api=$restricted" "--grpc-restricted-protocol=$restricted"
"""
"""Bash: $0 is tritonserver, $@ its options. The key is made at each start and told to nobody: it stands in no object of
the cluster and in no log. Without AIP_MODE, which an image may set, Vertex AI's port stays shut."""


def command(*, through_entry_point: bool) -> Json:
    """Of the container: what it runs. NVIDIA's images begin with a script that prepares CUDA and then runs its
    arguments, so it must not be replaced; ours begins with Triton itself."""
    start = ["/bin/bash", "-ec", START, "tritonserver"]
    options = [
        f"--model-repository={names.DIR_MODELS}",
        *GUARDED,
        f"--http-port={names.PORT_HTTP}",
        f"--grpc-port={names.PORT_GRPC}",
        f"--metrics-port={names.PORT_TRITON_METRICS}",
    ]
    return {"args": [*start, *options]} if through_entry_point else {"command": start, "args": options}
