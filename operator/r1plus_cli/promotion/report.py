"""The result of a wait as a line for people, as JSON, or as a JUnit file for a pipeline."""

import xml.etree.ElementTree as ET
from enum import StrEnum
from typing import Any, Final

from r1plus_cli.deployment.status_text import fill_in_commands
from r1plus_cli.promotion.outcome import PromotionOutcome, PromotionResult
from r1plus_contract.jsonable import dumps

_VERBS: Final = {
    PromotionResult.PROMOTED: "promoted after",
    PromotionResult.REFUSED: "refused after",
    PromotionResult.STALLED: "stalled after",
    PromotionResult.DELETED: "deleted after",
    PromotionResult.TIMED_OUT: "not promoted within",
}


class ReportFormat(StrEnum):
    """Formats of the result."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"


def format_report(outcome: PromotionOutcome, key: str, seconds: float, output: ReportFormat) -> str:
    """Return the text to print. `key`: namespace/name; `seconds`: the time waited."""
    if output is ReportFormat.JSON:
        return dumps(_build_document(outcome, key, seconds)) + "\n"
    if output is ReportFormat.JUNIT:
        return _format_junit(outcome, key, seconds)
    return f"{_format_line(outcome, key, seconds)}\n"


def _format_line(outcome: PromotionOutcome, key: str, seconds: float) -> str:
    cause = f"{outcome.reason}: " if outcome.reason and outcome.result is not PromotionResult.PROMOTED else ""
    line = f"{key}: {_VERBS[outcome.result]} {_format_seconds(seconds)}: {cause}{_format_message(outcome)}"
    figures = _format_figures(outcome)
    return f"{line}\n{figures}" if figures else line


def _format_message(outcome: PromotionOutcome) -> str:
    """Return the message with commands that can be run as they are."""
    return fill_in_commands(outcome.view, outcome.message) if outcome.view else outcome.message


def _format_figures(outcome: PromotionOutcome) -> str:
    """Return what serves and its accuracy as the status has it; without a current revision, the candidate's."""
    view = outcome.view
    if view is None or not view.accuracy:
        return ""
    subject = f"revision {view.revision} serves" if view.revision else f"candidate {view.candidate}"
    return f"{subject}: {view.accuracy} right, threshold {view.threshold}, verdict {view.verdict or 'none yet'}"


def _build_document(outcome: PromotionOutcome, key: str, seconds: float) -> dict[str, Any]:
    namespace, _, name = key.partition("/")
    view = outcome.view
    return {
        "namespace": namespace,
        "name": name,
        "result": outcome.result.value,
        "reason": outcome.reason,
        "message": _format_message(outcome),
        "waitedSeconds": round(seconds, 1),
        "generation": outcome.generation,
        "revision": view.revision if view else "",
        "candidate": view.candidate if view else "",
        "engine": view.engine if view else "",
        "suite": view.suite if view else "",
        "accuracy": view.accuracy if view else "",
        "threshold": view.threshold if view else "",
        "verdict": view.verdict if view else "",
    }


def _format_junit(outcome: PromotionOutcome, key: str, seconds: float) -> str:
    """Return one test suite with one test: a refusal is a failure, a wait without a result an error."""
    is_promoted, is_refused = (outcome.result is one for one in (PromotionResult.PROMOTED, PromotionResult.REFUSED))
    counts = {"tests": "1", "failures": str(int(is_refused)), "errors": str(int(not (is_promoted or is_refused)))}
    duration = {"time": f"{seconds:.1f}"}
    suite = ET.Element("testsuite", {"name": "r1plus wait", **counts, **duration})
    case = ET.SubElement(suite, "testcase", {"classname": "r1plus.wait.promoted", "name": key, **duration})
    if not is_promoted:
        reason = {"type": outcome.reason or outcome.result.value, "message": _format_message(outcome)}
        ET.SubElement(case, "failure" if is_refused else "error", reason).text = _format_line(outcome, key, seconds)
    else:
        ET.SubElement(case, "system-out").text = _format_line(outcome, key, seconds)
    ET.indent(suite)
    return f"{ET.tostring(suite, encoding='unicode', xml_declaration=False)}\n"


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"
