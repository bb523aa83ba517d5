"""The embedded cluster's command line: `PYTHONPATH=tests python -m devcluster VERB`. The Makefile calls it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster import binaries, down, kubeconfig, packages
from devcluster.apiserver_only import ApiServer, stop_in
from devcluster.cache import locked
from devcluster.cluster import LOCK, Cluster
from devcluster.layout import cluster_layout
from devcluster.shell import CommandError
from devcluster.steps import Steps
from support.waiting import WaitError

POSTGRESQL = "postgresql"


def main(arguments: Sequence[str]) -> int:
    """Parse the words after the program's name and run the verb; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except (CommandError, RuntimeError, WaitError) as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="install Debian packages and compile the cluster's programs, once")
    build.add_argument(
        "names",
        nargs="*",
        help=f"only these programs, and no Debian packages but those of {POSTGRESQL}, if it is named",
    )
    build.set_defaults(run=_build)
    verbs.add_parser("up", help="build what is missing and start the cluster").set_defaults(run=_up)
    stop = verbs.add_parser("down", help="stop the cluster and remove everything of it")
    stop.add_argument("--purge", action="store_true", help="also the imported images, the logs and the image cache")
    stop.set_defaults(run=_down)
    verbs.add_parser("check-clean", help="list what is left of a cluster; fails if anything is").set_defaults(
        run=_check
    )
    verbs.add_parser("kubeconfig", help="print the administrator's kubeconfig").set_defaults(run=_kubeconfig)
    inside = verbs.add_parser("exec", help="run a command in the cluster's network namespace: exec -- CMD")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    inside.set_defaults(run=_exec)
    forward = verbs.add_parser("forward", help="open a loopback port that leads into the cluster")
    forward.add_argument("target", help="address:port inside, or prometheus, or alertmanager")
    forward.set_defaults(run=_forward)
    diagnose = verbs.add_parser("diagnostics", help="write logs, events and pod states into a folder")
    diagnose.add_argument("folder", type=Path)
    diagnose.set_defaults(run=lambda options: Cluster.attach().diagnostics(options.folder))
    alone = verbs.add_parser("apiserver-only", help="an API server on loopback, without a node")
    alone.add_argument("action", choices=("up", "down"))
    alone.add_argument("--dir", type=Path, required=True)
    alone.add_argument("--controller-manager", action="store_true")
    alone.set_defaults(run=_apiserver_only)
    return parser


def _build(options: argparse.Namespace) -> None:
    steps = Steps()
    if options.names:
        steps.expect(len(options.names))
        if POSTGRESQL in options.names:
            packages.install(steps, packages.POSTGRESQL)
        binaries.build(steps, tuple(name for name in options.names if name != POSTGRESQL))
        return
    build_all(steps)


def build_all(steps: Steps) -> None:
    """Everything that starting a cluster needs, except images."""
    steps.expect(packages.STEP_COUNT + binaries.STEP_COUNT)
    packages.install(steps)
    binaries.build(steps)
    binaries.build_kubectl(steps)


def _up(options: argparse.Namespace) -> None:
    steps = Steps()
    build_all(steps)
    cluster = Cluster.up(steps)
    print(f"kubectl:      export KUBECONFIG={cluster.kubeconfig}")
    print(f"Prometheus:   {cluster.prometheus_url}")
    print(f"Alertmanager: {cluster.alertmanager_url}")


def _down(options: argparse.Namespace) -> None:
    layout = cluster_layout()
    with locked(LOCK):
        before = down.leftovers(layout)
        down.down(layout, purge=options.purge)
    for line in down.told(before, layout):
        print(line)
    if kubeconfig.names_embedded():
        print(f"This shell still has it: unset {kubeconfig.VARIABLE}")


def _check(options: argparse.Namespace) -> int:
    found = down.leftovers(cluster_layout())
    for kind, items in found.items():
        for item in items:
            print(f"left: {kind} {item}")
    return 1 if found else 0


def _kubeconfig(options: argparse.Namespace) -> None:
    print(Cluster.attach().kubeconfig)


def _exec(options: argparse.Namespace) -> None:
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    command = Cluster.attach().inside(*(words or ["sh"]))
    os.execvp(command[0], command)


def _forward(options: argparse.Namespace) -> None:
    cluster = Cluster.attach()
    if options.target in cluster.ports:
        print(f"127.0.0.1:{cluster.ports[options.target]}")
        return
    address, port = options.target.rsplit(":", 1)
    print(f"127.0.0.1:{cluster.forward(address, int(port))}")


def _apiserver_only(options: argparse.Namespace) -> None:
    if options.action == "down":
        stop_in(options.dir)
        return
    api = ApiServer(controller_manager=options.controller_manager, folder=options.dir, outlive=True)
    api.start()
    print(api.kubeconfig)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
