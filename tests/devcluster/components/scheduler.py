"""kube-scheduler, alone and therefore without leader election."""

from devcluster.cache import binary
from devcluster.components.apiserver import write_kubeconfig
from devcluster.components.controller_manager import alone
from devcluster.daemons import Daemon
from devcluster.layout import Layout
from devcluster.pki import Authority

NAME = "kube-scheduler"
USER = "system:kube-scheduler"


def daemon(layout: Layout, authority: Authority) -> Daemon:
    """The scheduler's command line, with its own certificate."""
    config = write_kubeconfig(NAME, USER, (), layout, authority)
    return Daemon(NAME, (str(binary(NAME)), *alone(config, layout.scheduler_port, layout)))
