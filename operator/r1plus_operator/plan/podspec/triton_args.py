"""Options of tritonserver in a serving pod: what it may do, and which of its APIs callers can use.

Network policies admit callers, and they are not authenticated. So only Triton's APIs for inference and health are open;
metrics have their own port. Logging would write requests to the log, and shared memory exposes what the backend's
processes exchange. `model-control-mode=none` refuses loads by itself.
"""

from r1plus_contract import names
from r1plus_operator.plan.observation import Json

EXIT_TIMEOUT_SECONDS = 30
RESTRICTED_APIS = ("metadata", "shared-memory", "model-config", "model-repository", "statistics", "trace", "logging")
"""Triton's names for its APIs, without `health` and `inference`; the same over HTTP and gRPC."""
KEY = "r1plus-nobody"
"""Header whose value opens them (over gRPC `triton-grpc-protocol-r1plus-nobody`)."""
GUARD_OPTIONS = (
    "--model-control-mode=none",
    "--disable-auto-complete-config",
    "--strict-readiness=true",
    f"--exit-timeout-secs={EXIT_TIMEOUT_SECONDS}",
    "--allow-gpu-metrics=false",
    "--log-verbose=0",
)
"""Everything else is off: response cache, tracing, the ports of SageMaker and Vertex AI (see `START`)."""
START = f"""\
unset AIP_MODE
key=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')
[ ${{#key}} = 64 ] || {{ echo "there is no randomness for the key of Triton's restricted APIs"; exit 1; }}
restricted={",".join(RESTRICTED_APIS)}:{KEY}=$key
set -- "$0" "$@" "--http-restricted-api=$restricted" "--grpc-restricted-protocol=$restricted"
[ $$ = 1 ] || exec "$@"
rm -rf /dev/shm/*
"$@" &
server=$!
trap 'kill -TERM $server || :' TERM
while status=0; wait $server || status=$?; kill -0 $server 2>/dev/null; do :; done
exit $status
"""
"""Bash script: $0 is tritonserver, $@ its options. It creates a new key at each start, which is in no object of the
cluster and in no log. It unsets AIP_MODE, which an image may set, so that Vertex AI's port stays closed.

As a container's first process it stays, and passes SIGTERM on: the kernel keeps SIGKILL and signals without a handler
from a first process. So a server that loads would not end, nor one whose exit hangs (`backends.guard`). What a killed
server has left in the volume /dev/shm, up to 40 MiB each time, is removed."""


def build_command(*, through_entry_point: bool) -> Json:
    """Return command and arguments of the container.

    The entry point of NVIDIA's images prepares CUDA and then runs its arguments, so it must not be replaced. Our image
    has no such entry point.
    """
    start = ["/bin/bash", "-ec", START, "tritonserver"]
    options = [
        f"--model-repository={names.DIR_MODELS}",
        *GUARD_OPTIONS,
        f"--http-port={names.PORT_HTTP}",
        f"--grpc-port={names.PORT_GRPC}",
        f"--metrics-port={names.PORT_TRITON_METRICS}",
    ]
    return {"args": [*start, *options]} if through_entry_point else {"command": start, "args": options}
