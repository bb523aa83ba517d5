"""`status.runtime`: which images serve, whether new pods would be others, what is done about it. Part of the plan."""

from collections.abc import Mapping, Sequence
from typing import Final

from r1plus_contract.requests import Verb, format_command
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision, Runtime
from r1plus_operator.plan.revision.refresh import DueRefresh, RefreshOutcome
from r1plus_operator.plan.settings import OperatorConfig

MOST_IMAGE, MOST_MESSAGE = 512, 1024
CURRENT: Final = "Current"
OUTDATED: Final = "RuntimeOutdated"
WAITS: Final = "RefreshWaits"
UNDER_WAY: Final = "RefreshUnderWay"
FAILED: Final = "RefreshFailed"


def tell_runtime(
    revisions: Mapping[str, Revision],
    current: str | None,
    target: str | None,
    due: DueRefresh | None,
    config: OperatorConfig,
) -> Json | None:
    """Return `status.runtime` of what serves, or of the first candidate; None where there is neither."""
    shown = revisions.get(current or target or "")
    if shown is None:
        return None
    runtime = shown.runtime
    is_outdated = not _is_of_now(runtime, config)
    failed = [r for r in revisions.values() if r.refresh and r.refresh.outcome is RefreshOutcome.FAILED]
    failed = sorted((r for r in failed if _is_of_now(r.runtime, config)), key=lambda r: r.number)
    asked_for = revisions[target] if target and target != shown.name else None
    reason, message = _explain(failed, asked_for, due, _outdated(runtime, config) if is_outdated else "")
    return {
        "triton": runtime.triton[:MOST_IMAGE],
        "monitor": runtime.monitor[:MOST_IMAGE],
        "outdated": is_outdated,
        "vulnerable": config.is_vulnerable(runtime.triton) or config.is_vulnerable(runtime.monitor),
        "reason": reason,
        "message": message[:MOST_MESSAGE],
    }


def _is_of_now(runtime: Runtime, config: OperatorConfig) -> bool:
    tritons = {config.triton_image, *(gpu.image for gpu in config.gpu_runtimes.values())}
    has_images = runtime.triton in tritons and runtime.monitor == config.monitor_image
    return has_images and runtime.names_user == bool(config.pod_user.named)


def _explain(
    failed: Sequence[Revision], asked_for: Revision | None, due: DueRefresh | None, outdated: str
) -> tuple[str, str]:
    if failed:
        text = f"Revision {failed[-1].name} on the operator's images failed, so nothing more of its wave begins"
        return FAILED, f"{text}; see the other conditions, then {format_command(Verb.ACK)} lets the wave go on"
    if due is not None:
        return WAITS, f"What serves is behind what the operator has: {due.wait_reason}"
    if asked_for and asked_for.refresh and asked_for.refresh.outcome in (None, RefreshOutcome.OVERDUE):
        return UNDER_WAY, f"Revision {asked_for.name} is a candidate on the operator's images"
    if not outdated:
        return CURRENT, "What serves runs the images that the operator has"
    return OUTDATED, f"{outdated}, which is gated like any other"


def _outdated(runtime: Runtime, config: OperatorConfig) -> str:
    """Say what new pods would be otherwise, and how to get them."""
    named, refresh = bool(config.pod_user.named), format_command(Verb.REFRESH)
    if runtime.names_user == named:
        return f"What serves runs other images than the operator has now; {refresh} asks for a candidate on those"
    if named:
        text = "Pods of what serves name no user, and this namespace assigns none any more"
    else:
        text = "Pods of what serves name a user, and this namespace assigns users by now"
    return f"{text}: those that run go on, and new ones may be refused; {refresh} asks for a candidate that fits"
