"""Add-ons: parts of the project that the core works without. What a user does who lacks one."""


def explain_missing_addon(subject: str, extra: str) -> str:
    """Return that an add-on is missing, and how to install it.

    Args:
        subject: what needs it, such as a command.
        extra: the extra that installs it; the add-on has its name.
    """
    return f"{subject} needs the add-on {extra}, which is not installed; in a clone: pip install '.[cli,{extra}]'"
