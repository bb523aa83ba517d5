"""The sample of the golden suite: which items, and how an export answers, in a process of its own.

`python -m r1plus_export.answering MODULE` is that process: a ChildRequest on standard input, a ChildReply on standard
output, as the curator's. It reports its progress on standard error.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

from r1plus_contract.inference import FinishReason
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.suites.suite import Item, Suite, SuiteSampling
from r1plus_export.errors import ExportError
from r1plus_model.sampling.answer_end import StopRule
from r1plus_monitoring.curate.asking import AskingCondition, CandidateAnswer, ChildReply, ChildRequest

IsFinished = Callable[[list[int]], bool]
_PROGRESS: Final = "answered "
_MOST_TOLD: Final = 1500
"""Characters of a failed process's output."""
THREADS: Final = "OMP_NUM_THREADS"
_TENSORFLOW_THREADS: Final = "TF_NUM_INTRAOP_THREADS"
_QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "2"}
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Everything that an export needs is in its folder."""


class TextModel(Protocol):
    """An export that was opened: text to tokens, tokens to tokens, tokens to text."""

    @property
    def end_ids(self) -> Collection[int]:
        """Tokens that end an answer."""

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation in the chat template, up to where the answer begins."""

    def generate(self, ids: list[int], most: int, is_finished: IsFinished) -> list[int]:
        """Return the most likely continuation: until `is_finished`, which is asked after each token, or `most`."""

    def decode(self, ids: list[int]) -> str:
        """Return the text without special tokens."""


def sample_items(suite: Suite, count: int) -> tuple[Item, ...]:
    """Return so many items, or all: spread evenly over the strata."""
    items = sorted(suite.items, key=lambda item: (item.stratum, item.id))
    count = min(count, len(items))
    return tuple(items[number * len(items) // count] for number in range(count))


def check_sampling(suite: Suite) -> None:
    """Raise ExportError unless the suite asks for the most likely answer, which is all that exports are asked for."""
    for name, value, expected in (
        ("temperature", suite.header.sampling.temperature, 0.0),
        ("repetitionPenalty", suite.header.sampling.repetition_penalty, 1.0),
    ):
        if value != expected:
            raise ExportError(
                f"--suite: {suite.header.name}: sampling.{name}: {value}, and an export is asked greedily; give a suite"
                f" with {expected}"
            )


class ExportAsker:
    """Asks an export as the curator asks an engine folder."""

    def __init__(self, module: str, folder: Path, sampling: SuiteSampling, progress: Callable[[str], None]) -> None:
        self._module, self._folder, self._sampling, self._progress = module, folder, sampling, progress

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        """Return answers by item id; items are asked one after the other.

        Raises:
            ExportError: the process failed; it has the end of what it wrote.
        """
        request = ChildRequest(str(self._folder), condition, self._sampling, tuple(items))
        reply = loads(ChildReply, run_child(__name__, (self._module,), dumps(request), self._progress))
        return {item.id: answer for item, answer in zip(items, reply.answers, strict=True)}


def run_child(module: str, words: Sequence[str], text: str, progress: Callable[[str], None]) -> str:
    """Run `python -m MODULE WORDS`; return its standard output. Lines of progress are passed on as they come.

    Raises:
        ExportError: it failed.
    """
    command = [sys.executable, "-m", module, *words]
    tail = ""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as output:
        given.write(text)
        given.seek(0)
        with subprocess.Popen(
            command, stdin=given, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace", env=_environ()
        ) as child:
            assert child.stderr is not None
            try:
                for line in child.stderr:
                    if line.startswith(_PROGRESS):
                        progress(line.rstrip())
                    else:
                        tail = (tail + line)[-_MOST_TOLD:]
            except BaseException:  # As Ctrl-C: the answers are not wanted any more.
                child.kill()
                raise
        if child.returncode != 0:
            raise ExportError(f"{module} {' '.join(words)}: exit status {child.returncode}: {tail.strip()}")
        output.seek(0)
        return output.read()


def _environ() -> dict[str, str]:
    """Return the environment of a process that opens an export: no network, and half of the processors.

    Threads that wait for each other take minutes for a token where other processes want all processors.
    """
    threads = os.environ.get(THREADS) or str(max(1, len(os.sched_getaffinity(0)) // 2))
    return {THREADS: threads, _TENSORFLOW_THREADS: threads, **_QUIET} | os.environ | OFFLINE


def answer_all(
    model: TextModel, items: Sequence[Item], sampling: SuiteSampling, progress: Callable[[str], None]
) -> tuple[CandidateAnswer, ...]:
    """Ask the items one after the other, as the suite says."""
    answers = []
    for number, item in enumerate(items, 1):
        answers.append(_answer(model, item, sampling))
        if number % 10 == 0 or number == len(items):
            progress(f"{_PROGRESS}{number} of {len(items)}")
    return tuple(answers)


def _answer(model: TextModel, item: Item, sampling: SuiteSampling) -> CandidateAnswer:
    messages = [{"role": "user", "content": item.prompt}]
    if sampling.system:
        messages.insert(0, {"role": "system", "content": sampling.system})
    end = StopRule(model.end_ids, sampling.stop, model.decode)
    ids = model.generate(model.encode(messages), sampling.max_new_tokens, end.is_reached)
    reason = FinishReason.STOP if ids and end.is_reached(ids) else FinishReason.LENGTH
    return CandidateAnswer(end.cut(ids), reason, len(ids))


def main() -> None:
    """Entry point."""
    reply_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is not the reply.
    request = loads(ChildRequest, sys.stdin.read())
    model: TextModel = import_module(sys.argv[1]).open_model(Path(request.engine))

    def report(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    with reply_stream:
        reply_stream.write(dumps(ChildReply(answer_all(model, request.items, request.sampling, report))))


if __name__ == "__main__":
    main()
