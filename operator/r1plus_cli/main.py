"""The `r1plus` command: it puts the commands of all packages together, and sets the exit status."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.advice.advise import advise_command
from r1plus_cli.assembly import add_history, add_training
from r1plus_cli.bundle.bundle_app import app as bundle_app
from r1plus_cli.deployment.ask import ask_command
from r1plus_cli.deployment.explain import explain_command
from r1plus_cli.deployment.plan import plan_command
from r1plus_cli.deployment.status import status_command
from r1plus_cli.deployment.validate import validate_command
from r1plus_cli.edge import app as edge_app
from r1plus_cli.engine.engine_app import app as engine_app
from r1plus_cli.errors import CliError
from r1plus_cli.fit import fit_command
from r1plus_cli.gateway.key import key_app
from r1plus_cli.gateway.knowledge import knowledge_app
from r1plus_cli.gateway.usage import audit_command, usage_command
from r1plus_cli.hints import runnable_hint
from r1plus_cli.preflight.preflight_command import preflight_command
from r1plus_cli.promotion.wait import wait_command
from r1plus_cli.rollout.rollouts import rollouts_command
from r1plus_cli.rollout.verbs import VERB_HELPS, build_command, refresh_command
from r1plus_cli.serve.service import app as serve_app
from r1plus_cli.suite.suite_app import app as suite_app
from r1plus_cli.tenant.tenant_app import app as tenant_app
from r1plus_cli.trial.try_command import try_command

app = typer.Typer(
    name="r1plus",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Shows R1+ models in an enterprise's Kubernetes: what would run, what runs, and how accurate it is.

**preflight** checks a cluster before r1plus is installed, and **try** shows it at work afterwards. **bundle** brings a
release into a private registry. **fit**, **plan** and **validate** need no cluster; **advise** measures which tier is
enough. **status**, **explain**, **ask** and **wait** use your kubeconfig and only
read. **history**, **evaluations** and **engines** show what the registry recorded. **suite** makes and signs golden
suites; **engine** makes engines of models. **rollback**, **pin**, **unpin**, **ack** and **refresh** request an action
of the operator and record who and why. **rollouts** shows which images serve, and the progress of newer ones.
**key**, **usage** and **audit** administer a tenant's gateway; **tenant** makes half of its key, backs up its data
and restores them.

Start here: `r1plus plan -f examples/credit-full.yaml`
""",
)

app.add_typer(bundle_app)
app.add_typer(suite_app)
add_training(engine_app)
app.add_typer(engine_app)
app.add_typer(edge_app)
app.add_typer(key_app)
app.add_typer(knowledge_app)
app.add_typer(serve_app)
app.add_typer(tenant_app)
app.command("preflight")(preflight_command)
app.command("try")(try_command)
app.command("fit")(fit_command)
app.command("advise")(advise_command)
app.command("plan")(plan_command)
app.command("validate")(validate_command)
app.command("status")(status_command)
app.command("explain")(explain_command)
app.command("ask")(ask_command)
app.command("wait")(wait_command)
for _verb, _help in VERB_HELPS.items():
    app.command(_verb.value, help=_help)(build_command(_verb))
app.command("refresh")(refresh_command)
app.command("rollouts")(rollouts_command)
add_history(app)
app.command("usage")(usage_command)
app.command("audit")(audit_command)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        sys.stdout.write(f"r1plus {version('r1plus')}\n")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """Entry point of the `r1plus` script: errors that a user can fix are one line, not a trace."""
    try:
        app()
    except CliError as error:
        Console(stderr=True, soft_wrap=True).print(Text(runnable_hint(f"Error: {error}"), style="red"))
        sys.exit(error.status)
