"""`r1plus serve confirm-time` and `token`: what the owner of one machine does as its gateway's administrator."""

import sys

from r1plus_cli.errors import converted_errors
from r1plus_cli.serve.serve_app import DataOption, find_folder
from r1plus_cli.serve.update import app as app
from r1plus_edge.control import OwnerVerb, ask


@app.command("confirm-time")
def confirm_time_command(data: DataOption = None) -> None:
    """Let the gateway on this machine go by the machine's clock, once that is right. A log record says so.

    Where it starts with a clock more than 7 days ahead of what its data have seen, retention waits for this; then it
    deletes what is older than its time. Limits per minute begin again, and so may a month.
    """
    _answer(OwnerVerb.CONFIRM_TIME, data)


@app.command("token")
def token_command(data: DataOption = None) -> None:
    """Print a token of the administrator of this machine's gateway. It is valid for five minutes.

    With it in R1PLUS_GATEWAY_TOKEN, and the gateway's address in R1PLUS_GATEWAY, what a cluster's administrators do
    works here: `r1plus key`, `usage`, `audit`, and those verbs of `r1plus tenant` that call the gateway.

    Example: `R1PLUS_GATEWAY_TOKEN=$(r1plus serve token) r1plus tenant erase --end-user anna@example.com`
    """
    _answer(OwnerVerb.SIGN_TOKEN, data)


def _answer(verb: OwnerVerb, data: DataOption) -> None:
    with converted_errors():
        sys.stdout.write(f"{ask(find_folder(data), verb)}\n")
