"""Programs of a stored answer: what one has printed is stored once, in the logs of its item.

`r1plus.code` has the same texts apart. Where a text is a part of the logs, its place in them is stored instead.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from r1plus_assistant.code.code_interpreter import CALL, read_logs

_TEXTS: Final = ("output", "value", "error")
"""Of a run, in the order in which the logs have them: the output first, and then one of the others."""
Run = Mapping[str, Any]


def refer_to_logs(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as it is stored."""
    return _change_runs(answer, _refer_to_logs)


def read_runs(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a stored answer as the client got it. Answers of earlier releases have the texts themselves."""
    return _change_runs(answer, _read_run)


def _change_runs(answer: dict[str, Any], change: Callable[[Run, str], Run]) -> dict[str, Any]:
    figures = answer["r1plus"]
    if not figures.get("code"):
        return answer
    logs = {item["id"]: read_logs(item["outputs"]) for item in answer["output"] if item["type"] == CALL}
    runs = [change(run, logs[run["id"]]) for run in figures["code"]]
    return {**answer, "r1plus": {**figures, "code": runs}}


def _refer_to_logs(run: Run, logs: str) -> Run:
    return {**run, **{name: _find_place(name, run[name], logs) for name in _TEXTS}}


def _find_place(name: str, text: str | None, logs: str) -> list[int] | str | None:
    """Return where the logs have a text, in characters; the text itself where they have none, or another one."""
    if not text:
        return text
    start = 0 if name == _TEXTS[0] else len(logs) - len(text)
    place = [start, start + len(text)]
    return place if start >= 0 and logs[slice(*place)] == text else text


def _read_run(run: Run, logs: str) -> Run:
    places = {name: run[name] for name in _TEXTS if isinstance(run[name], list)}
    return {**run, **{name: logs[slice(*place)] for name, place in places.items()}}
