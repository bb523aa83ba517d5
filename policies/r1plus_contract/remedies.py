"""What to do about a problem, as values: plan and gateway name a remedy, and each front words it.

Conditions of a cluster name `kubectl` and `r1plus`, those of one machine its files and `r1plus serve`. A text is worded
where it is made, by the wording of the front that reads it; nobody rewrites a text.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Final

from r1plus_contract.requests import Verb, format_command


class Remedy(StrEnum):
    """A step that ends a problem, or shows its cause. A comment names the values that its words have."""

    ACKNOWLEDGE = "Acknowledge"
    RESUME = "Resume"
    RESUME_DEPLOYMENT = "ResumeDeployment"  # name, namespace
    UNPIN = "Unpin"
    ROLL_BACK = "RollBack"
    ROLL_BACK_TO = "RollBackTo"  # target
    ROLL_BACK_FASTER = "RollBackFaster"  # target
    READ_RUNBOOK = "ReadRunbook"  # url
    READ_LOG = "ReadLog"  # container
    READ_LOG_OF_POD = "ReadLogOfPod"  # namespace, pod, container
    READ_LOG_BEFORE = "ReadLogBefore"  # pod, container
    LOWER_LOAD = "LowerLoad"
    ADD_POD = "AddPod"
    ADD_NODE = "AddNode"
    PROVIDE_TRAINER = "ProvideTrainer"
    PROVIDE_ENGINE = "ProvideEngine"
    PROVIDE_TORCH = "ProvideTorch"
    PROVIDE_RUNTIME = "ProvideRuntime"  # backend, setting
    PROVIDE_SUITE = "ProvideSuite"  # name, label


LARGEST_NODE: Final = "LargestNode"
"""Not a remedy, but worded like one: the owner of the memory that an engine is fitted into."""
Wording = Mapping[str, str]
"""A front's words: remedy -> text with its values in braces; empty text: the front has no such remedy."""

CLUSTER: Final[Wording] = {
    Remedy.ACKNOWLEDGE: format_command(Verb.ACK),
    Remedy.RESUME: format_command(Verb.RESUME),
    Remedy.RESUME_DEPLOYMENT: format_command(Verb.RESUME, "{name} -n {namespace}"),
    Remedy.UNPIN: format_command(Verb.UNPIN),
    Remedy.ROLL_BACK: format_command(Verb.ROLLBACK),
    Remedy.ROLL_BACK_TO: f"{format_command(Verb.ROLLBACK)} goes back to {{target}} by hand",
    Remedy.ROLL_BACK_FASTER: (
        "It first repeats the suite on {target}, which takes minutes; to go back in seconds, apply the spec of {target}"
        " again (`r1plus history NAME -n NAMESPACE` shows whether its Pass still counts)"
    ),
    Remedy.READ_RUNBOOK: "runbook: {url}",
    Remedy.READ_LOG: "`kubectl logs -c {container}`",
    Remedy.READ_LOG_OF_POD: "`kubectl logs -n {namespace} {pod} -c {container}`",
    Remedy.READ_LOG_BEFORE: "`kubectl logs {pod} -c {container} --previous`",
    Remedy.LOWER_LOAD: "raise spec.replicas or lower the batch",
    Remedy.ADD_POD: "raise spec.replicas, or check why the others are not Ready",
    Remedy.ADD_NODE: "add a larger node",
    Remedy.PROVIDE_TRAINER: (
        "is trained by a Job, but this installation names no image with torch; set the chart's images.trainer to an"
        " image with r1plus[cli,engine,distil]"
    ),
    Remedy.PROVIDE_ENGINE: (
        "name its image and digest in the chart's images.engines and engineDigests, or register an R1PlusEngine with"
        " spec.artifact"
    ),
    Remedy.PROVIDE_TORCH: "name a Triton image with torch in the chart's images.cpu.torch",
    Remedy.PROVIDE_RUNTIME: "name a Triton image with {backend} in the chart's {setting}",
    Remedy.PROVIDE_SUITE: ", and this namespace has no ConfigMap {name} with the label {label}; available suites",
    LARGEST_NODE: "the largest matching node",
}
"""The words of conditions that `kubectl` shows."""
_WORDING: Final[ContextVar[Wording]] = ContextVar("wording", default=CLUSTER)


@contextmanager
def use_wording(wording: Wording) -> Iterator[None]:
    """Word remedies for a front while the context is open."""
    token = _WORDING.set(wording)
    try:
        yield
    finally:
        _WORDING.reset(token)


def word(remedy: str, **values: str) -> str:
    """Return the words of a remedy for the front that reads; empty: that front has none."""
    return _WORDING.get()[remedy].format(**values)


def append_remedy(text: str, remedy: str, separator: str = "; ", **values: str) -> str:
    """Return the text with a remedy after it, if the front that reads has words for it."""
    words = word(remedy, **values)
    return f"{text}{separator}{words}" if words else text
