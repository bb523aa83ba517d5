"""Images of the cluster's own pods: one program each, and that program is the entrypoint.

prometheus-operator starts Prometheus, Alertmanager and the reloader by their images' entrypoints, so each needs an
image of its own. Static programs start from nothing; kube-router and Alertmanager need a file system under them.
"""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devcluster.binaries import module_folder
from devcluster.cache import binary
from devcluster.images import rootfs
from devcluster.images.recipe import Recipe, stamp
from devcluster.parts import KUBERNETES, go_binary
from devcluster.shell import run

PAUSE = "pause"
NOBODY = "65534:65534"
ALERTMANAGER = Path("/usr/bin/prometheus-alertmanager")
ALERTMANAGER_TEMPLATES = Path("/usr/share/prometheus/alertmanager")


@dataclass(frozen=True, slots=True)
class Component:
    """One program of the cluster as an image. `program` is where the image has it; `user` is `UID:GID`."""

    name: str
    program: str
    user: str = NOBODY
    base: Recipe | None = None
    source: Path | None = None
    """A program of the machine's packages; None for one of `parts.GO_BINARIES` with the image's name."""
    data: tuple[Path, ...] = ()
    """Files of the machine's packages that the program opens at start, where it looks for them."""

    @property
    def file(self) -> Path:
        """The program on this machine."""
        return self.source if self.source is not None else binary(self.name)


def components() -> tuple[Component, ...]:
    """The table. Places inside the images are those of the upstream images, so upstream manifests fit."""
    return (
        Component("coredns", "/coredns"),
        Component("kube-router", "/usr/local/bin/kube-router", user="0:0", base=rootfs.packet_filter()),
        Component("local-path-provisioner", "/usr/bin/local-path-provisioner"),
        Component("prometheus-operator", "/bin/operator"),
        Component("prometheus-config-reloader", "/bin/prometheus-config-reloader"),
        Component("prometheus", "/bin/prometheus"),
        Component(
            "alertmanager",
            "/bin/alertmanager",
            base=rootfs.base(),
            source=ALERTMANAGER,
            data=tuple(ALERTMANAGER_TEMPLATES / name for name in ("default.tmpl", "email.tmpl")),
        ),
    )


def recipes() -> list[Recipe]:
    """Everything that the cluster itself runs, bases first: the plain base also serves as the volume helper."""
    return [rootfs.base(), rootfs.packet_filter(), pause(), *(_recipe(component) for component in components())]


def recipe_names() -> tuple[str, ...]:
    """Names of what `recipes` makes, whether or not the programs have been built yet."""
    bases = (rootfs.base().name, rootfs.packet_filter().name)
    return (*bases, PAUSE, *(component.name for component in components()))


def pause() -> Recipe:
    """The process that holds a pod's namespaces, from Kubernetes' own source."""
    containerfile = 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
    return Recipe(PAUSE, containerfile, (KUBERNETES,), _compile_pause)


def containerfile(component: Component) -> str:
    """The Containerfile of a one-program image."""
    start = "ARG BASE\nFROM ${BASE}\n" if component.base is not None else "FROM scratch\n"
    path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    entrypoint = json.dumps([component.program])
    data = "".join(f"COPY {file.name} {file}\n" for file in component.data)
    return f"{start}COPY program {component.program}\n{data}{path}USER {component.user}\nENTRYPOINT {entrypoint}\n"


def _recipe(component: Component) -> Recipe:
    if not component.file.exists():
        raise FileNotFoundError(f"image {component.name}: {component.file} is missing; run `devcluster build` first")
    text, ingredients = containerfile(component), tuple(stamp(file) for file in (component.file, *component.data))
    return Recipe(component.name, text, ingredients, partial(_copy_files, component), component.base)


def _copy_files(component: Component, context: Path, log: Path) -> None:
    shutil.copy2(component.file, context / "program")
    for file in component.data:
        shutil.copy2(file, context / file.name)


def _compile_pause(context: Path, log: Path) -> None:
    source = module_folder(go_binary("kubelet")) / "build" / "pause" / "linux" / "pause.c"
    run(["gcc", "-Os", "-Wall", "-static", f"-DVERSION={KUBERNETES}", "-s", "-o", context / "pause", source], log=log)
