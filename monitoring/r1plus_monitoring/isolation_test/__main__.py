"""`python3 -m r1plus_monitoring.isolation_test decoy|knock|ask`: the isolation probe, and the decoy that it attacks."""

import argparse
import asyncio
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from r1plus_contract.monitor.isolation import API_HOST, DIR_TOKEN, AttemptOutcome, Findings
from r1plus_contract.process.termination import TERMINATION_LOG, write_termination_message
from r1plus_monitoring.isolation_test import api_requests, connections, decoy
from r1plus_monitoring.isolation_test.arguments import (
    OrderError,
    parse_connections,
    parse_ports,
    parse_requests,
    parse_seconds,
)
from r1plus_monitoring.isolation_test.attempts import ROUNDS_SECONDS, Rounds
from r1plus_monitoring.isolation_test.termination_message import encode_findings

ABOUT: Final = """\
Tests a tenant's isolation and reports the findings; the operator judges them.

  decoy   listens, and identifies itself to every client
  knock   tries TCP connections, all at once
  ask     sends requests to the API server, all at once

An attempt that must fail (the default, --expect shut) is repeated while it succeeds: network policies take a moment to
apply to a new pod. --expect open is for the control: the same attempts from a pod that is allowed, which shows that a
success would be noticed. Findings go to the termination log as JSON, a line for each attempt to standard output.
Exit code: 0 whatever the findings, 2 if the arguments are invalid.

Examples:
  python3 -m r1plus_monitoring.isolation_test decoy --ports 8000,8001,8002,8080
  python3 -m r1plus_monitoring.isolation_test knock --doors \\
    '[{"name": "metadata", "host": "169.254.169.254", "port": 80, "against": "platform"},
      {"name": "dns", "host": "kube-dns.kube-system.svc", "port": 53, "against": "own"}]'
  python3 -m r1plus_monitoring.isolation_test ask --questions \\
    '[{"name": "secrets", "method": "GET", "path": "/api/v1/namespaces/r1plus-decoy/secrets"}]'

`against` is decoy (another tenant's: open only if the decoy itself answers), platform, or own (allowed: it shows that
the network works). A request with "anonymous": true is sent without the token; one that writes needs dryRun=All in its
path's query.
"""


def main() -> int:
    """Entry point."""
    start = time.monotonic()
    parser = build_parser()
    arguments = parser.parse_args()
    # PID 1 receives only signals that it handles.
    signal.signal(signal.SIGTERM, partial(_exit, 0 if arguments.command == "decoy" else 128 + signal.SIGTERM))
    try:
        if arguments.command == "decoy":
            asyncio.run(decoy.serve(parse_ports(arguments.ports)))
        else:
            write_termination_message(arguments.termination_log, encode_findings(run_test(arguments, start)))
    except OrderError as error:
        write_termination_message(arguments.termination_log, str(error))
        print(error, file=sys.stderr)
        return 2
    return 0


def run_test(arguments: argparse.Namespace, start: float) -> Findings:
    """Run what the arguments order; raise OrderError where they are invalid."""
    rounds = Rounds(parse_seconds(arguments.rounds_for), say=partial(print, flush=True))
    expect = AttemptOutcome(arguments.expect)
    if arguments.command == "knock":
        return asyncio.run(connections.try_connections(parse_connections(arguments.doors), expect, rounds, start))
    requests = parse_requests(arguments.questions)
    api = api_requests.load_api(arguments.token_dir, *arguments.api)
    return asyncio.run(api_requests.send_requests(requests, api, expect, rounds, start))


def _exit(code: int, *_: object) -> NoReturn:
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. Orders are checked later, by reading them, so that all problems are reported at once."""
    root = argparse.ArgumentParser(
        prog="python3 -m r1plus_monitoring.isolation_test",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = root.add_subparsers(dest="command", required=True, metavar="decoy|knock|ask")
    decoy_command = verbs.add_parser("decoy", help="listen as the decoy")
    decoy_command.add_argument("--ports", required=True, help="ports to listen on, such as 8000,8001")
    knock_command = verbs.add_parser("knock", help="try TCP connections")
    knock_command.add_argument("--doors", required=True, help="JSON list of {name, host, port, against}")
    ask_command = verbs.add_parser("ask", help="send requests to the API server")
    ask_command.add_argument(
        "--questions",
        required=True,
        help="JSON list of {name, method, path} and, where needed, body, contentType, anonymous",
    )
    ask_command.add_argument(
        "--token-dir", type=Path, default=Path(DIR_TOKEN), help="holds token and ca.crt (default %(default)s)"
    )
    ask_command.add_argument(
        "--api", type=_parse_host_port, default=(API_HOST, 443), metavar="HOST:PORT", help=f"default {API_HOST}:443"
    )
    for command in (knock_command, ask_command):
        command.add_argument(
            "--expect",
            choices=[AttemptOutcome.SHUT.value, AttemptOutcome.OPEN.value],
            default=AttemptOutcome.SHUT.value,
            help="open: for the control, which is allowed through (default %(default)s)",
        )
        command.add_argument(
            "--rounds-for",
            default=str(ROUNDS_SECONDS),
            metavar="SECONDS",
            help="for how long attempts are repeated (default %(default)s)",
        )
    for command in (decoy_command, knock_command, ask_command):
        command.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="default %(default)s")
    return root


def _parse_host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
