"""The command as it is installed: where an add-on is missing, its verbs say how to install it.

Nothing else of this package imports add-ons.
"""

from collections.abc import Callable, Collection
from typing import Final

import typer

from r1plus_cli.errors import CliError
from r1plus_contract.addons import explain_missing_addon

TRAINING: Final = "training"
TRAINING_VERBS: Final = ("distill", "reinforce", "export")
"""Verbs of `r1plus engine` that the add-on training has."""


HISTORY: Final = "history"
HISTORY_VERBS: Final = ("history", "evaluations", "engines")
"""Verbs of `r1plus` that the add-on history has."""


def add_history(app: typer.Typer) -> None:
    """Add the verbs that show what the registry recorded."""
    try:
        from r1plus_history.commands import COMMANDS
    except ModuleNotFoundError as error:
        _check_missing(error, "r1plus_history")
        add_missing_verbs(app, HISTORY_VERBS, "r1plus", HISTORY)
    else:
        for verb in HISTORY_VERBS:
            app.command(verb)(COMMANDS[verb])


def add_training(engine_app: typer.Typer) -> None:
    """Add the verbs that train and export models to `r1plus engine`."""
    try:
        from r1plus_training.commands import COMMANDS
    except ModuleNotFoundError as error:
        _check_missing(error, "r1plus_training")
        add_missing_verbs(engine_app, TRAINING_VERBS, "r1plus engine", TRAINING)
    else:
        for verb in TRAINING_VERBS:
            engine_app.command(verb)(COMMANDS[verb])


def add_missing_verbs(app: typer.Typer, verbs: Collection[str], command: str, extra: str) -> None:
    """Add verbs that raise CliError with what installs them, whatever their arguments are.

    Args:
        app: the command's application, which lacks the verbs.
        verbs: their names.
        command: what is typed before a verb.
        extra: the add-on that has them.
    """
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    for verb in verbs:
        text = explain_missing_addon(f"{command} {verb}", extra)
        app.command(verb, context_settings=settings, help=f"Not installed: {text}.")(_build_refusal(text))


def _build_refusal(text: str) -> Callable[[], None]:
    def refuse() -> None:
        raise CliError(text)

    return refuse


def _check_missing(error: ModuleNotFoundError, package: str) -> None:
    """Raise the error again unless it is the package of an add-on that is missing: a damaged one is no absent one."""
    if error.name != package:
        raise error
