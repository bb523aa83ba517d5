"""`status.runtime`: which images serve, whether they are outdated, and what is done about it. Part of the plan."""

from collections.abc import Mapping, Sequence
from typing import Final

from r1plus_contract.remedies import Remedy, word
from r1plus_contract.requests import Verb, format_command
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision, Runtime
from r1plus_operator.plan.revision.refresh import DueRefresh, RefreshOutcome
from r1plus_operator.plan.settings import OperatorConfig

MAX_IMAGE, MAX_MESSAGE = 512, 1024
CURRENT: Final = "Current"
OUTDATED: Final = "RuntimeOutdated"
WAITS: Final = "RefreshWaits"
UNDER_WAY: Final = "RefreshUnderWay"
FAILED: Final = "RefreshFailed"


def build_runtime_status(
    revisions: Mapping[str, Revision],
    current: str | None,
    target: str | None,
    due: DueRefresh | None,
    config: OperatorConfig,
) -> Json | None:
    """Return `status.runtime` of what serves, or of the first candidate; None: there is neither."""
    revision = revisions.get(current or target or "")
    if revision is None:
        return None
    runtime = revision.runtime
    is_outdated = not _is_current(runtime, config)
    failures = [r for r in revisions.values() if r.refresh and r.refresh.outcome is RefreshOutcome.FAILED]
    failures = sorted((r for r in failures if _is_current(r.runtime, config)), key=lambda r: r.number)
    candidate = revisions[target] if target and target != revision.name else None
    reason, message = _explain(failures, candidate, due, _explain_outdated(runtime, config) if is_outdated else "")
    return {
        "triton": runtime.triton[:MAX_IMAGE],
        "monitor": runtime.monitor[:MAX_IMAGE],
        "outdated": is_outdated,
        "vulnerable": config.is_vulnerable(runtime.triton) or config.is_vulnerable(runtime.monitor),
        "reason": reason,
        "message": message[:MAX_MESSAGE],
    }


def _is_current(runtime: Runtime, config: OperatorConfig) -> bool:
    has_images = runtime.triton in config.triton_images and runtime.monitor == config.monitor_image
    return has_images and runtime.names_user == bool(config.pod_user.security_fields)


def _explain(
    failures: Sequence[Revision], candidate: Revision | None, due: DueRefresh | None, outdated_text: str
) -> tuple[str, str]:
    if failures:
        text = f"Revision {failures[-1].name} on the operator's images failed, so no other deployment gets them"
        return (
            FAILED,
            f"{text}; see the other conditions for the cause, then {word(Remedy.ACKNOWLEDGE)} continues the update",
        )
    if due is not None:
        return (
            WAITS,
            f"The serving pods do not run the operator's current images, and the update waits: {due.wait_reason}",
        )
    if candidate and candidate.refresh and candidate.refresh.outcome in (None, RefreshOutcome.OVERDUE):
        return UNDER_WAY, f"Revision {candidate.name} is a candidate on the operator's images"
    if not outdated_text:
        return CURRENT, "The serving pods run the operator's current images"
    return OUTDATED, f"{outdated_text}, which is gated like any other"


def _explain_outdated(runtime: Runtime, config: OperatorConfig) -> str:
    """Return how new pods would differ, and how to get them."""
    sets_user, refresh = bool(config.pod_user.security_fields), format_command(Verb.REFRESH)
    if runtime.names_user == sets_user:
        return f"The serving pods do not run the operator's current images; {refresh} requests a candidate on those"
    if sets_user:
        text = "The serving pods set no user, but this namespace does not assign users any more"
    else:
        text = "The serving pods set a user, but this namespace assigns users now"
    return f"{text}: running pods continue, new ones may be refused; {refresh} requests a candidate that fits"
