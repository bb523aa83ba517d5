"""Errors of the edge tier.

    EdgeError           something on this machine is in the way, exit status 1
    └── EdgeRequestError    the arguments or the R1PlusDeployment are invalid, exit status 2

Every message names what was asked for, what is wrong, and what to do.
"""


class EdgeError(Exception):
    """This machine cannot do what was asked for."""

    status = 1


class EdgeRequestError(EdgeError):
    """What was asked for means nothing on one machine."""

    status = 2
