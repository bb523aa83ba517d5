"""`python3 -m r1plus_monitoring.isolation_test decoy|knock|ask`: the prober of walls, and the decoy that it attacks."""

import argparse
import asyncio
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from r1plus_contract.isolation import API_HOST, DIR_TOKEN, Findings, Outcome
from r1plus_contract.termination import TERMINATION_LOG, leave_word
from r1plus_monitoring.isolation_test import api_requests, connections, decoy
from r1plus_monitoring.isolation_test.arguments import OrderError, doors_of, ports_of, questions_of, seconds_of
from r1plus_monitoring.isolation_test.attempts import ROUNDS_SECONDS, Rounds
from r1plus_monitoring.isolation_test.termination_message import last_words

ABOUT: Final = """\
Tries the walls around a tenant, and says what it found; whether they hold is judged by the operator.

  decoy   listens, and says that it is the decoy to whoever connects
  knock   tries doors of the network (TCP), all at once
  ask     puts questions to the API server, all at once

A try that must fail (the default, --expect shut) is made again while a door is open, since a new pod's walls take a
moment to stand. --expect open is for the control: the same tries from a pod that is let through, which shows that an
open door would have been seen. Findings go to the termination log as JSON, a line for each attempt to standard output.
Exit code: 0 whatever was found, 2 if the arguments cannot be tried.

Examples:
  python3 -m r1plus_monitoring.isolation_test decoy --ports 8000,8001,8002,8080
  python3 -m r1plus_monitoring.isolation_test knock --doors \\
    '[{"name": "metadata", "host": "169.254.169.254", "port": 80, "against": "platform"},
      {"name": "dns", "host": "kube-dns.kube-system.svc", "port": 53, "against": "own"}]'
  python3 -m r1plus_monitoring.isolation_test ask --questions \\
    '[{"name": "secrets", "method": "GET", "path": "/api/v1/namespaces/r1plus-decoy/secrets"}]'

`against` is decoy (another tenant's: open only if the decoy itself answers), platform, or own (open by right: it shows
that there is a network at all). A question with "anonymous": true is put without the token; one that writes needs
dryRun=All in its path's query.
"""


def main() -> int:
    """Entry point."""
    began = time.monotonic()
    parser = commands()
    arguments = parser.parse_args()
    # As the first process of a container it would hear no signal that it does not ask for.
    signal.signal(signal.SIGTERM, partial(_end, 0 if arguments.command == "decoy" else 128 + signal.SIGTERM))
    try:
        if arguments.command == "decoy":
            asyncio.run(decoy.serve(ports_of(arguments.ports)))
        else:
            leave_word(arguments.termination_log, last_words(find(arguments, began)))
    except OrderError as error:
        leave_word(arguments.termination_log, str(error))
        print(error, file=sys.stderr)
        return 2
    return 0


def find(arguments: argparse.Namespace, began: float) -> Findings:
    """Try what is ordered; raises OrderError."""
    rounds = Rounds(seconds_of(arguments.rounds_for), say=partial(print, flush=True))
    expect = Outcome(arguments.expect)
    if arguments.command == "knock":
        return asyncio.run(connections.knock(doors_of(arguments.doors), expect, rounds, began))
    questions = questions_of(arguments.questions)
    api = api_requests.api_of(arguments.token_dir, *arguments.api)
    return asyncio.run(api_requests.ask(questions, api, expect, rounds, began))


def _end(code: int, *_: object) -> NoReturn:
    sys.exit(code)


def commands() -> argparse.ArgumentParser:
    """The command line. What is wrong with an order is found by reading it, not by the parser: all of it at once."""
    root = argparse.ArgumentParser(
        prog="python3 -m r1plus_monitoring.isolation_test",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = root.add_subparsers(dest="command", required=True, metavar="decoy|knock|ask")
    listen = verbs.add_parser("decoy", help="listen, and say so")
    listen.add_argument("--ports", required=True, help="to listen on, such as 8000,8001")
    doors = verbs.add_parser("knock", help="try doors of the network")
    doors.add_argument("--doors", required=True, help="JSON list of {name, host, port, against}")
    questions = verbs.add_parser("ask", help="put questions to the API server")
    questions.add_argument(
        "--questions",
        required=True,
        help="JSON list of {name, method, path} and, where needed, body, contentType, anonymous",
    )
    questions.add_argument(
        "--token-dir", type=Path, default=Path(DIR_TOKEN), help="holds token and ca.crt (default %(default)s)"
    )
    questions.add_argument(
        "--api", type=_host_port, default=(API_HOST, 443), metavar="HOST:PORT", help=f"default {API_HOST}:443"
    )
    for verb in (doors, questions):
        verb.add_argument(
            "--expect",
            choices=[Outcome.SHUT.value, Outcome.OPEN.value],
            default=Outcome.SHUT.value,
            help="open: for the control, which is let through (default %(default)s)",
        )
        verb.add_argument(
            "--rounds-for",
            default=str(ROUNDS_SECONDS),
            metavar="SECONDS",
            help="for how long tries are made again (default %(default)s)",
        )
    for verb in (listen, doors, questions):
        verb.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="default %(default)s")
    return root


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
