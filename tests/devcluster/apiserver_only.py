"""An API server without a node, for tests of the controller: etcd, kube-apiserver, controller manager if asked.

    with ApiServer(controller_manager=True) as api:
        subprocess.run(["kubectl", f"--kubeconfig={api.kubeconfig}", "get", "namespaces"])

It listens on loopback only. Its processes die with the test's process, and a folder that a killed test left
is removed by the next start.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from devcluster import daemons
from devcluster.api import Api
from devcluster.cache import binary
from devcluster.components import apiserver, controller_manager, etcd
from devcluster.layout import Layout, loopback_layout
from devcluster.parts import API_SERVER_BINARIES
from devcluster.pki import Authority, Certificate

READY_S = 300.0
_RECORD = "layout.json"


class ApiServer:
    """A running API server; also the context manager that starts and stops it."""

    def __init__(
        self,
        *,
        controller_manager: bool = False,
        folder: Path | None = None,
        outlive: bool = False,
        fill_etcd: Callable[[Layout, Authority], None] | None = None,
    ) -> None:
        """`folder` keeps the state where the caller wants it; `outlive` leaves the processes when this one ends.

        `fill_etcd` is called once etcd runs and before kube-apiserver does: what it writes there, the API server finds.
        """
        self._wants_manager = controller_manager
        self._fill_etcd = fill_etcd
        self._owns_folder = folder is None
        self._folder = folder
        self._outlive = outlive
        self._layout: Layout | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def layout(self) -> Layout:
        """Folders and ports; an error before `start`."""
        if self._layout is None:
            raise RuntimeError("the API server has not been started")
        return self._layout

    @property
    def url(self) -> str:
        """For example https://127.0.0.1:41234."""
        return self.layout.api_url

    @property
    def kubeconfig(self) -> Path:
        """A cluster-admin's kubeconfig."""
        return self.layout.kubeconfig("admin")

    @property
    def ca(self) -> Path:
        """The certificate that clients verify the server with."""
        return self._authority.certificate

    @property
    def audit_log(self) -> Path:
        """One JSON line per request: user, verb, resource, response code."""
        return self.layout.logs / "audit.log"

    @property
    def pid(self) -> int:
        """Of kube-apiserver."""
        return daemons.pid(apiserver.NAME, self.layout)

    def client_cert(self, user: str, groups: tuple[str, ...] = ()) -> Certificate:
        """A client certificate for `user` in `groups`; RBAC decides what it may do."""
        return self._authority.issue(_file_name(user, groups), user, groups)

    def server_cert(self, name: str) -> Certificate:
        """A certificate for a server on loopback that this API server's clients trust."""
        return self._authority.issue(name, name, hosts=("localhost", "127.0.0.1"))

    def kubeconfig_for(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig for `user` in `groups`, for instance a service account's name and groups."""
        return Path(apiserver.write_kubeconfig(_file_name(user, groups), user, groups, self.layout, self._authority))

    def start(self) -> None:
        """Start and wait until /readyz says ok; about 5 s on an idle machine."""
        require_binaries()
        folder = self._folder or _scratch_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._layout = loopback_layout(folder.resolve())
        try:
            self._start_daemons()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """End kube-apiserver and start it again on the same port; etcd goes on."""
        daemons.stop(apiserver.NAME, self.layout, grace_s=0.0)
        self._start_apiserver()

    def stop(self) -> None:
        """End the processes and remove the state that `start` made."""
        if self._layout is None:
            return
        for name in daemons.recorded_names(self._layout):
            daemons.stop(name, self._layout, grace_s=0.0)
        if self._owns_folder:
            shutil.rmtree(self._layout.state, ignore_errors=True)
        self._layout = None

    @property
    def _authority(self) -> Authority:
        return Authority(self.layout.pki)

    def _start_daemons(self) -> None:
        layout, authority = self.layout, self._authority
        authority.ensure()
        (layout.state / _RECORD).write_text(json.dumps({"run": str(layout.run)}))
        self._start(etcd.daemon(layout, authority))
        if self._fill_etcd is not None:
            self._fill_etcd(layout, authority)
        self._start_apiserver()
        apiserver.write_kubeconfig("admin", "admin", (apiserver.ADMIN_GROUP,), layout, authority)
        if self._wants_manager:
            self._start(controller_manager.daemon(layout, authority))

    def _start_apiserver(self) -> None:
        layout, authority = self.layout, self._authority
        self._start(apiserver.daemon(layout, authority))
        client = authority.issue("client-admin", "admin", (apiserver.ADMIN_GROUP,))
        daemons.wait_ready(apiserver.NAME, layout, Api(layout.api_url, authority, client).ready, READY_S)

    def _start(self, daemon: daemons.Daemon) -> None:
        daemons.start(daemon, self.layout, die_with_parent=not self._outlive)


def stop_in(folder: Path) -> None:
    """End what `apiserver-only up --dir FOLDER` started, and remove its state."""
    layout = loopback_layout(folder.resolve())
    for name in daemons.recorded_names(layout):
        daemons.stop(name, layout)
    if (folder / "pki").is_dir():
        shutil.rmtree(folder)


def require_binaries() -> None:
    """Say how to get the programs when the cache lacks one."""
    absent = [name for name in API_SERVER_BINARIES if not binary(name).exists()]
    if absent:
        raise SystemExit(f"Not built yet: {', '.join(absent)}; run: PYTHONPATH=tests python -m devcluster build")


def _scratch_folder() -> Path:
    """A folder named after this process; those of processes that have ended are removed on the way."""
    root = Path(tempfile.gettempdir()) / f"r1plus-apiserver-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    for left in root.iterdir():
        pid, started, _ = (left.name + "..").split(".", 2)
        if not pid.isdigit() or daemons.start_time(int(pid)) != started:
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}.{daemons.start_time(os.getpid())}.", dir=root))


def _file_name(user: str, groups: tuple[str, ...]) -> str:
    return "-".join(word.replace(":", "_").replace("/", "_") for word in (user, *groups))
