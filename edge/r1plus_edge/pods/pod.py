"""A pod of the plan as processes: its volumes are folders, its init containers run first, its containers stay."""

import asyncio
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract import names
from r1plus_contract.gateway import ENV_HELPER_START_SECONDS, ENV_INTERNAL_LISTENER, ENV_LISTENER
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.pods.confinement import Confinement, PrivateFiles, build_confinement
from r1plus_edge.pods.container import FIRST_BACKOFF, LONGEST_BACKOFF, Container, Program
from r1plus_edge.pods.images import Images, build_command, build_environment
from r1plus_edge.pods.on_demand import SOCKET, START_SECONDS, OnDemandContainer
from r1plus_edge.pods.places import LOOPBACK, PodPlaces
from r1plus_edge.pods.probes import ContainerProbe, build_liveness, build_readiness, read_probe
from r1plus_edge.pods.triton_sockets import build_drain, find_sockets
from r1plus_edge.pods.volumes import write_config
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_monitoring.config import ENV_LISTEN_FD
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.podspec.pod import hash_pod_spec, list_images
from r1plus_policies.backoff import double_delay

SHARED_MEMORY: Final = "/dev/shm"
"""A mount that stays where it is: Triton's backend uses this path, whatever a template says."""
LISTENERS: Final = {"api": ENV_LISTENER, "internal": ENV_INTERNAL_LISTENER, "monitor": ENV_LISTEN_FD}
"""Name of a container's port -> variable that names the socket there. This process opens it and keeps it open: no other
user's program can take the port while the container's process is gone, and be believed. Triton takes no such socket."""


@dataclass(frozen=True, slots=True)
class VolumeSources:
    """Where the contents of volumes come from."""

    read_config: Callable[[str], Mapping[str, str] | None]
    """Name of a ConfigMap -> its files; None: there is none."""
    claims: Mapping[str, Path] = field(default_factory=dict)
    """Name of a claim -> its folder."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Name of a Secret -> its folder."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Name of a volume -> the folder that it is already, so that no init container has to fill it."""


class LocalPod:
    """One pod. `run` it as a task; `end` it before that task is cancelled."""

    def __init__(
        self,
        name: str,
        template: Json,
        folder: DataFolder,
        images: Images,
        sources: VolumeSources,
        on_change: Callable[[], None],
        sockets: Mapping[str, str] | None = None,
        listeners: Mapping[int, socket.socket] | None = None,
    ) -> None:
        """Prepare its containers.

        `sockets`: container that is started on demand -> path in the pod of the socket by which it is asked;
        `listeners`: container's port -> a socket that listens there already. For the others it opens one.
        """
        self.name = name
        self.uid = secrets.token_hex(8)
        self._template = template
        self._spec: Json = template["spec"]
        self._data = folder
        self._root = folder.pods / name
        self._images = images
        self._sources = sources
        self._on_change = on_change
        self._sockets = sockets or {}
        triton = [self._find_tmp(one) for one in self._spec["containers"] if one["name"] == names.CONTAINER_TRITON]
        self.sockets: Mapping[int, Path] = {port: path for tmp in triton for port, path in find_sockets(tmp).items()}
        """Triton's, instead of ports."""
        own = self._list_ports() - (listeners or {}).keys() - self.sockets.keys()
        self._own_listeners = {port: socket.create_server((LOOPBACK, 0)) for port in own}
        self._listeners = {**self._own_listeners, **(listeners or {})}
        self.ports = {port: int(one.getsockname()[1]) for port, one in self._listeners.items()}
        self.is_terminating = False
        self.has_been_ready = False
        """Whether it has been observed Ready, so that callers may wait for its answers."""
        self._ready_since: float | None = None
        self._init = [self._build_container(one) for one in self._spec.get("initContainers", ()) if self._fills(one)]
        self._containers = [self._build_container(one) for one in self._spec["containers"]]

    @property
    def containers(self) -> tuple[Container, ...]:
        """Its containers, init containers first."""
        return (*self._init, *self._containers)

    @property
    def is_ready(self) -> bool:
        """Whether all its containers are."""
        return not self.is_terminating and all(one.facts.ready for one in self._containers)

    @property
    def restarts(self) -> int:
        """How often its containers were started again."""
        return sum(one.restarts for one in self._containers)

    @property
    def facts(self) -> PodFacts:
        """What the plan observes of it."""
        meta, is_ready = self._template["metadata"], self.is_ready
        self._ready_since = (self._ready_since or time.time()) if is_ready else None
        self.has_been_ready = self.has_been_ready or is_ready
        revision = str(meta["labels"].get(names.LABEL_REVISION, ""))
        return PodFacts(
            name=self.name,
            revision=revision,
            ip=LOOPBACK,
            ready=is_ready,
            terminating=self.is_terminating,
            unschedulable="",
            containers=tuple(one.facts for one in self.containers),
            replica_set=f"{revision}-local",
            fingerprint=hash_pod_spec(self._spec),
            images=list_images(self._spec),
            owner_uid=str((meta.get("annotations") or {}).get(names.ANNOTATION_OWNER_UID, "")),
            uid=self.uid,
            node="localhost",
            ready_since=self._ready_since,
        )

    def find_template(self, name: str) -> Json:
        """Return a container as the template has it."""
        return next(dict(one) for one in self._spec["containers"] if one["name"] == name)

    def find_container(self, name: str) -> Container:
        """Return a container, init containers too."""
        return next(one for one in self.containers if one.program.name == name)

    async def run(self) -> None:
        """Fill the volumes, then run the containers until cancelled."""
        self._make_volumes()
        for container in self._init:
            while await container.run_once() != 0:
                container.failures += 1
                await asyncio.sleep(double_delay(container.failures, FIRST_BACKOFF, LONGEST_BACKOFF))
        async with asyncio.TaskGroup() as group:
            for container in self._containers:
                group.create_task(container.run())

    def refresh_configs(self) -> None:
        """Bring the mounted ConfigMaps up to date."""
        for volume in self._spec["volumes"]:
            folder = self._find_volume(volume["name"]) if "configMap" in volume else None
            if folder is not None and folder.is_dir():  # Else it does not run yet.
                files = self._sources.read_config(volume["configMap"]["name"])
                if files is not None:
                    write_config(folder, files)

    async def end(self, grace: float, *, is_gentle: bool = False) -> None:
        """End all containers; `is_gentle`: first wait for requests, as the template says."""
        self.is_terminating = True
        self._on_change()
        if is_gentle:
            limit = float(self._spec.get("terminationGracePeriodSeconds", 30))
            try:
                async with asyncio.timeout(limit):
                    await asyncio.gather(*(one.stop_gently() for one in self._containers))
            except TimeoutError:
                pass  # It had its time.
        await asyncio.gather(*(one.end(grace) for one in self.containers))

    def remove(self) -> None:
        """Give its own ports back, and remove its volumes; those of claims stay."""
        for listener in self._own_listeners.values():
            listener.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def places_of(self, container: Json) -> PodPlaces:
        """Return the places of a container."""
        return PodPlaces(self._find_folders(container), self.ports, self.sockets)

    def _find_folders(self, container: Json) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        for mount in container.get("volumeMounts", ()):
            if mount["mountPath"] != SHARED_MEMORY:
                folders[mount["mountPath"]] = self._find_volume(mount["name"]) / mount.get("subPath", "")
        return folders

    def _fills(self, container: Json) -> bool:
        """Whether an init container has something to do: a volume that is filled already needs none."""
        return not {mount["name"] for mount in container["volumeMounts"]} <= self._sources.folders.keys()

    def _list_ports(self) -> set[int]:
        return {port for one in self._spec["containers"] for port in _list_ports(one)}

    def _find_volume(self, name: str) -> Path:
        if name in self._sources.folders:
            return self._sources.folders[name]
        volume = next(one for one in self._spec["volumes"] if one["name"] == name)
        if "persistentVolumeClaim" in volume:
            return self._sources.claims[volume["persistentVolumeClaim"]["claimName"]]
        if "secret" in volume:
            return self._sources.secrets[volume["secret"]["secretName"]]
        return self._root / "volumes" / name

    @staticmethod
    def _read_startup_probe(container: Json, places: PodPlaces) -> ContainerProbe | None:
        """Return a container's startup probe. The monitor's looks at the first process of its container.

        There is none here; and who serves keeps the port's socket.
        """
        is_monitor = container["name"] == names.CONTAINER_MONITOR
        return None if is_monitor else read_probe(container, "startupProbe", places)

    def _build_container(self, container: Json) -> Container:
        places, tmp = self.places_of(container), self._find_tmp(container)
        resources = container.get("resources", {})
        limit, request = (resources.get(kind, {}).get("memory") for kind in ("limits", "requests"))
        environment = build_environment(container, self.name, places, self._images, self._data.root, tmp)
        helper_socket = self._sockets.get(container["name"])
        ports = _list_ports(container)
        listeners = {port: self._listeners[port].fileno() for port in ports if port in self._listeners}
        environment |= {LISTENERS[ports[port]]: str(descriptor) for port, descriptor in listeners.items()}
        is_triton = container["name"] == names.CONTAINER_TRITON
        readiness, liveness = (read_probe(container, f"{kind}Probe", places) for kind in ("readiness", "liveness"))
        program = Program(
            name=container["name"],
            command=tuple(build_command(container, places, self._images, self._data.root)),
            environment=environment | self._name_sockets(container, places, tmp),
            folder=tmp,
            log=self._data.logs / f"{container['name']}.log",
            image_digest=str(container["image"]).partition("@")[2],
            memory_limit=bytes_of(limit) if limit else None,
            memory_request=bytes_of(request) if request else 0,
            confinement=self._build_confinement(container["name"], places, tmp),
            startup=self._read_startup_probe(container, places),
            readiness=build_readiness(readiness, places) if is_triton and readiness else readiness,
            liveness=build_liveness(liveness, places) if is_triton and liveness else liveness,
            drain=build_drain(self._spec, self.sockets) if is_triton else None,
            sockets=tuple(self.sockets.values()) if is_triton else (),
            descriptors=tuple(listeners.values()),
        )
        if helper_socket:
            return OnDemandContainer(program, self._on_change, places.find(helper_socket))
        return Container(program, self._on_change)

    def _build_confinement(self, name: str, places: PodPlaces, tmp: Path) -> Confinement | PrivateFiles | None:
        if name in self._sockets:
            return build_confinement(places.folders.values(), tmp)
        return PrivateFiles() if name == names.CONTAINER_TRITON else None

    def _name_sockets(self, container: Json, places: PodPlaces, tmp: Path) -> dict[str, str]:
        """Return the variables that name sockets, relative to the working directory: a path has 107 bytes at most."""
        own, variables = self._sockets.get(container["name"]), {}
        for variable in container.get("env", ()):
            if (path := variable.get("value")) in self._sockets.values():
                variables[variable["name"]] = SOCKET if path == own else os.path.relpath(places.find(path), tmp)
        if variables and own is None:  # It is the gateway, and waits for what it wakes.
            variables[ENV_HELPER_START_SECONDS] = f"{START_SECONDS:g}"
        return variables

    def _find_tmp(self, container: Json) -> Path:
        return self._find_folders(container).get("/tmp") or self._root / "tmp" / container["name"]

    def _make_volumes(self) -> None:
        """Make empty folders, mount what is nested in them, and write the ConfigMaps."""
        shutil.rmtree(self._root, ignore_errors=True)
        for volume in self._spec["volumes"]:
            if volume["name"] not in self._sources.folders:
                self._find_volume(volume["name"]).mkdir(mode=0o700, parents=True, exist_ok=True)
        for container in (*self._spec.get("initContainers", ()), *self._spec["containers"]):
            self._find_tmp(container).mkdir(parents=True, exist_ok=True)
            self._nest_mounts(self.places_of(container))
        self.refresh_configs()

    def _nest_mounts(self, places: PodPlaces) -> None:
        """Let a mount below another one appear in that one's folder."""
        for path, folder in places.folders.items():
            parent, _, name = path.rpartition("/")
            if parent in places.folders:
                link = places.folders[parent] / name
                if not link.is_symlink():
                    link.symlink_to(folder, target_is_directory=True)


def _list_ports(container: Json) -> dict[int, str]:
    """Return the ports of a container with their names."""
    return {port["containerPort"]: port["name"] for port in container.get("ports", ())}
