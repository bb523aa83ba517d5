"""`PYTHONPATH=tests python -m devcluster VERB`: the command line of the embedded cluster. The Makefile calls it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster import binaries, packages
from devcluster.apiserver_only import ApiServer, stop_in
from devcluster.steps import Steps


def main(arguments: Sequence[str]) -> int:
    """Parse the words after the program's name and run the verb; returns the exit status."""
    options = _parser().parse_args(arguments)
    return int(options.run(options) or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="install Debian packages and compile the cluster's programs, once")
    build.add_argument("names", nargs="*", help="only these programs, and no Debian packages")
    build.set_defaults(run=_build)
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
        binaries.build(steps, tuple(options.names))
        return
    steps.expect(packages.STEP_COUNT + binaries.STEP_COUNT)
    packages.install(steps)
    binaries.build(steps)
    binaries.build_kubectl(steps)


def _apiserver_only(options: argparse.Namespace) -> None:
    if options.action == "down":
        stop_in(options.dir)
        return
    api = ApiServer(controller_manager=options.controller_manager, folder=options.dir, outlive=True)
    api.start()
    print(api.kubeconfig)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
