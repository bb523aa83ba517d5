"""Containers that help a tenant's gateway, in its pod: what each runs, and what it shares with the gateway. Pure.

A helper runs another program of the gateway's image under a user of its own. Both meet at a Unix socket on an emptyDir
that no other container mounts. A helper has no Secret, no token and no volume of the tenant. Policy `gateway-pods` of
the chart holds the operator to that, and knows the helpers by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from r1plus_contract import calculator, documents, early_exit, embedder
from r1plus_contract.gateway import ENV_CODE_INTERPRETER
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes, millicores_of
from r1plus_operator.api.tenants import Gateway
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import build_container_security_context, build_mount
from r1plus_operator.plan.settings import OperatorConfig

ENGINE_FILES: Final = "embedder-engine"
"""In the gateway's pod: the init container that copies an engine out of its image, and the volume that it fills."""
COPY_ENGINE: Final = f"cp -R /engine/. {embedder.DEFAULT_ENGINE_DIR}/"
SOCKET_SIZE: Final = "1Mi"
PRESTOP_SECONDS: Final = 5
PRESTOP: Final[Json] = {"preStop": {"exec": {"command": early_exit.build_hook(PRESTOP_SECONDS)}}}
"""For the gateway, time for the endpoint to leave every kube-proxy and Ingress controller, before new connections are
refused. Each container of the pod gets SIGTERM only when Python can handle it: a container's first process sees none
that comes before, and a pod that was deleted as it started stayed for its whole grace period."""
ENGINE_EXTRAS: Final = 64 * 2**20
"""Bytes of an engine's files beyond its weights."""
LOGS, LOGS_LIMIT = 32 * 2**20, 128 * 2**20
"""Disk for a helper's log on the node, bytes: request and limit."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container requests, and may use at most."""

    cpu: str
    cpu_limit: str
    memory: str
    memory_limit: str


@dataclass(frozen=True, slots=True)
class GatewayHelper:
    """One helper. `python3 -m MODULE` serves its socket, and `python3 -m MODULE health` asks one that runs."""

    name: str
    """Of its container and of the volume with its socket."""
    module: str
    user_offset: int
    """Added to the gateway's user, so that each container has its own; the group is common."""
    socket_env: str
    """Variable with the path of the socket, for both sides: R1PLUS_NAME_SOCKET."""
    socket: str
    """Path of the socket; its folder is the volume's mount."""
    resources: Resources
    tmp: str = ""
    """Size of its /tmp; empty: it has none."""
    settings: tuple[tuple[str, str], ...] = ()
    """Its own variables: names, which begin with R1PLUS_NAME_, and values."""
    gateway_settings: tuple[tuple[str, str], ...] = ()
    """The gateway's variables about it: names, which begin with R1PLUS_GATEWAY_, and values."""
    init_containers: tuple[Json, ...] = ()
    """What fills its volumes before the pod starts."""
    files_bytes: int = 0
    """Of its volumes beyond its socket and /tmp: disk of the node, as the pod's limit counts it."""
    mounts: tuple[Json, ...] = ()
    volumes: tuple[Json, ...] = ()
    """What it mounts beyond its socket and /tmp; policy `gateway-pods` has to know each."""

    @property
    def command(self) -> list[str]:
        """What its container runs."""
        return ["python3", "-m", self.module]

    @property
    def socket_folder(self) -> str:
        """Where both sides mount the volume with the socket."""
        return self.socket.rpartition("/")[0]

    @property
    def environment(self) -> Json:
        """The variable that both sides have."""
        return {"name": self.socket_env, "value": self.socket}


CALCULATOR: Final = GatewayHelper(
    name="calculator",
    module="r1plus_calculator",
    user_offset=1,
    socket_env=calculator.ENV_SOCKET,
    socket=calculator.DEFAULT_SOCKET,
    # Four workers of 272 MiB beyond their supervisor's 100.
    resources=Resources(cpu="50m", cpu_limit="2", memory="128Mi", memory_limit="1280Mi"),
)


CODE_INTERPRETER: Final = replace(
    CALCULATOR,
    resources=replace(CALCULATOR.resources, memory_limit="1600Mi"),
    settings=((calculator.ENV_INTERPRETER, calculator.DEFAULT_INTERPRETER),),
    gateway_settings=((ENV_CODE_INTERPRETER, "true"),),
)
"""The calculator, which also runs code: two programs at once, which take 150 MiB each with 128 MB of values."""

DOCUMENTS: Final = GatewayHelper(
    name="documents",
    module="r1plus_documents",
    user_offset=3,
    socket_env=documents.ENV_SOCKET,
    socket=documents.DEFAULT_SOCKET,
    # Two documents at once, of 384 MiB beyond their supervisor's 100.
    resources=Resources(cpu="50m", cpu_limit="2", memory="128Mi", memory_limit="960Mi"),
)


def build_embedder(engine: EmbeddingEngine) -> GatewayHelper:
    """Return the embedder with an engine, whose files an init container copies out of the engine's image.

    The embedder compares their digest when it starts, and serves no others.
    """
    spec = engine.spec
    memory = bytes_of(spec.requirements.weights_memory) + bytes_of(spec.requirements.runtime_memory)
    # The files are smaller than the weights in memory, in 32 bits; the tokenizer comes on top.
    size = bytes_of(spec.requirements.weights_memory) + ENGINE_EXTRAS
    target = build_mount(ENGINE_FILES, embedder.DEFAULT_ENGINE_DIR)
    return GatewayHelper(
        name="embedder",
        module="r1plus_embedder",
        user_offset=2,
        socket_env=embedder.ENV_SOCKET,
        socket=embedder.DEFAULT_SOCKET,
        resources=Resources(
            cpu=spec.requirements.cpu_request,
            cpu_limit=spec.requirements.cpu,
            memory=mebibytes(memory),
            memory_limit=mebibytes(memory),
        ),
        settings=(
            (embedder.ENV_ENGINE, engine.name),
            (embedder.ENV_SHA256, spec.artifact.sha256),
            (embedder.ENV_THREADS, str(max(1, millicores_of(spec.requirements.cpu) // 1000))),
        ),
        init_containers=(
            {
                "name": ENGINE_FILES,
                "image": spec.artifact.source,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-ec", COPY_ENGINE],
                "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": build_container_security_context(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [target],
            },
        ),
        files_bytes=size,
        mounts=(build_mount(ENGINE_FILES, embedder.DEFAULT_ENGINE_DIR, read_only=True),),
        volumes=({"name": ENGINE_FILES, "emptyDir": {"sizeLimit": mebibytes(size)}},),
    )


def select_helpers(gateway: Gateway, engine: EmbeddingEngine | None) -> tuple[GatewayHelper, ...]:
    """Return the helpers that a gateway asks for. `engine`: the one that it embeds with; None: it does not."""
    return (
        *((CODE_INTERPRETER if gateway.code_interpreter else CALCULATOR,) if gateway.calculator else ()),
        *((build_embedder(engine),) if engine is not None else ()),
        *((DOCUMENTS,) if gateway.knowledge else ()),
    )


def build_helper_container(helper: GatewayHelper, config: OperatorConfig, *, counts_storage: bool) -> Json:
    """Return a helper's container. Where the namespace assigns users, it has the gateway's."""
    user = config.pod_user.run_as_user
    return {
        "name": helper.name,
        "image": config.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "command": helper.command,
        "env": [helper.environment, *({"name": name, "value": value} for name, value in helper.settings)],
        "resources": _build_resources(helper, counts_storage=counts_storage),
        "securityContext": {
            **build_container_security_context(),
            **({} if user is None else {"runAsUser": user + helper.user_offset}),
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": PRESTOP,
        "startupProbe": _build_probe(helper, periodSeconds=2, timeoutSeconds=5, failureThreshold=60),
        "livenessProbe": _build_probe(helper, periodSeconds=20, timeoutSeconds=10, failureThreshold=3),
        "volumeMounts": [
            build_mount(helper.name, helper.socket_folder),
            *([build_mount(_name_tmp(helper), "/tmp")] if helper.tmp else []),
            *helper.mounts,
        ],
    }


def _build_resources(helper: GatewayHelper, *, counts_storage: bool) -> Json:
    sizes = helper.resources
    requests = {"cpu": sizes.cpu, "memory": sizes.memory}
    limits = {"cpu": sizes.cpu_limit, "memory": sizes.memory_limit}
    if counts_storage:
        disk = bytes_of(SOCKET_SIZE) + (bytes_of(helper.tmp) if helper.tmp else 0) + helper.files_bytes
        requests["ephemeral-storage"] = mebibytes(LOGS + disk)
        limits["ephemeral-storage"] = mebibytes(LOGS_LIMIT + disk)
    return {"requests": requests, "limits": limits}


def _build_probe(helper: GatewayHelper, **fields: int) -> Json:
    """Return a probe. None asks for readiness: without a helper the gateway still serves what does not need it."""
    return {"exec": {"command": [*helper.command, "health"]}, **fields}


def build_init_containers(helpers: Sequence[GatewayHelper]) -> list[Json]:
    """Return the pod's init containers for its helpers."""
    return [container for helper in helpers for container in helper.init_containers]


def build_helper_volumes(helpers: Sequence[GatewayHelper]) -> list[Json]:
    """Return the pod's volumes for its helpers."""
    return [volume for helper in helpers for volume in _build_volumes(helper)]


def _build_volumes(helper: GatewayHelper) -> list[Json]:
    return [
        {"name": helper.name, "emptyDir": {"sizeLimit": SOCKET_SIZE}},
        *([{"name": _name_tmp(helper), "emptyDir": {"sizeLimit": helper.tmp}}] if helper.tmp else []),
        *helper.volumes,
    ]


def _name_tmp(helper: GatewayHelper) -> str:
    return f"{helper.name}-tmp"


def build_socket_mounts(helpers: Sequence[GatewayHelper]) -> list[Json]:
    """Return the gateway's mounts of its helpers' sockets. It connects to them, and writes no file there."""
    return [build_mount(helper.name, helper.socket_folder, read_only=True) for helper in helpers]


def list_gateway_variables(helpers: Sequence[GatewayHelper]) -> list[Json]:
    """Return the gateway's variables about its helpers: their sockets, and what else it knows of them."""
    settings = [{"name": name, "value": value} for helper in helpers for name, value in helper.gateway_settings]
    return [*(helper.environment for helper in helpers), *settings]
