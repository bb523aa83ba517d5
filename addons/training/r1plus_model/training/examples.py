"""Training data: lines of JSON, as tokens of which some count. Needs no torch.

A line has `text`, of which every token counts, or `prompt` and `answer`, of which the answer's count: they are put into
the teacher's chat template, as a server does.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.suites.suite import Suite
from r1plus_model.encoder import Encoder
from r1plus_model.errors import DistillationError
from r1plus_model.training.suite_overlap import Overlap, SuiteIndex, describe_overlaps

MOST_BYTES: Final = 256 * 2**20
"""Of the file: hundreds of times what a training on CPUs reads in a day."""
MOST_LINE_BYTES: Final = 2**20
_FORMS: Final = 'a line is {"text": ...} or {"prompt": ..., "answer": ...}'


@dataclass(frozen=True, slots=True)
class ExampleLine:
    """One line."""

    line: int
    text: str
    """A text, or the answer to a prompt."""
    prompt: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens, at most `length`; those from `first` on count, which is at least 1: the first token has no context."""

    tokens: tuple[int, ...]
    first: int

    @property
    def targets(self) -> int:
        """Tokens that count."""
        return len(self.tokens) - self.first


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """What is trained on, and what is measured with."""

    training: tuple[Example, ...]
    held_out: tuple[Example, ...]
    skipped: int
    """Lines whose prompt leaves no room for an answer."""
    repeated: int
    """Lines and examples that equal one before them, and are in neither."""


def read_records(path: Path, suites: Iterable[Suite]) -> list[ExampleLine]:
    """Read the lines.

    Raises:
        DistillationError: the file is missing, too large or empty, a line has no such form, or questions of a suite
            are among them.
    """
    if not path.is_file():
        raise DistillationError(f"data: {path} is not a file; give a file of which {_FORMS}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DistillationError(
            f"data: {path} has {size / 2**20:.0f} MiB, at most {MOST_BYTES >> 20} are read; take a sample of its lines"
        )
    index, records, overlaps = SuiteIndex(suites), [], list[Overlap]()
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                record = _read_record(number, line)
                records.append(record)
                texts = (record.prompt or "", f"{record.prompt or ''} {record.text}")
                if overlap := next((one for text in texts if (one := index.find(number, text))), None):
                    overlaps.append(overlap)
    if overlaps:
        raise DistillationError(
            f"data: {len(overlaps)} of {len(records)} lines have questions of a golden suite"
            f" ({describe_overlaps(overlaps)}): a gate that was trained on measures nothing; remove these lines"
        )
    if not records:
        raise DistillationError(f"data: {path} has no line; {_FORMS}")
    return records


def _read_record(number: int, line: bytes) -> ExampleLine:
    where = f"data: line {number}"
    if len(line) > MOST_LINE_BYTES:
        raise DistillationError(f"{where}: {len(line)} bytes, at most {MOST_LINE_BYTES} are read; split the text")
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DistillationError(f"{where}: not JSON: {error}; {_FORMS}") from error
    names = set(fields) if isinstance(fields, dict) else set()
    if names not in ({"text"}, {"prompt", "answer"}):
        raise DistillationError(f"{where}: has {', '.join(sorted(names))[:80] or 'no fields'}; {_FORMS}")
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise DistillationError(f"{where}: {name}: {value!r:.40} is no text; {_FORMS}")
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            raise DistillationError(f"{where}: {name}: has half a character (a lone surrogate); remove it")
    return ExampleLine(number, fields.get("text") or fields["answer"], fields.get("prompt"))


def build_examples(
    records: list[ExampleLine], encoder: Encoder, length: int, wanted: int, seed: int, progress: Callable[[str], None]
) -> ExampleSet:
    """Return `wanted` examples for training, or all there are, in an order that the seed decides; and some held out.

    As many as a twentieth of the lines, at most 64, are held out: of lines apart, so no window of a text is in both.
    What is repeated counts once: else it could be trained on and held out.

    Raises:
        DistillationError: nothing is left to train on.
    """
    by_line = sorted(records, key=lambda record: record.line)
    order = list({(record.prompt, record.text): record for record in by_line}.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - a sample, no secret
    source = _ExampleSource(iter(order), encoder, length, repeated=len(records) - len(order))
    held_out = source.take(min(64, max(1, len(order) // 20)))
    training = source.take(wanted)
    repeats = f", {source.repeated} repeats left out" if source.repeated else ""
    if not training or not held_out:
        raise DistillationError(
            f"data: {len(records)} lines give {len(training)} examples for training and"
            f" {len(held_out)} to measure with{repeats}, and {source.skipped} have a prompt that leaves no room for an"
            f" answer in {length} tokens; give more lines, or a greater length"
        )
    progress(f"{len(training)} examples, {len(held_out)} more to measure with, {source.skipped} lines skipped{repeats}")
    return ExampleSet(training, held_out, source.skipped, source.repeated)


@dataclass(slots=True)
class _ExampleSource:
    """Encodes lines one after the other, and leaves out examples that it has given before."""

    lines: Iterator[ExampleLine]
    encoder: Encoder
    length: int
    repeated: int
    skipped: int = 0
    _taken: set[tuple[int, ...]] = field(default_factory=set)

    def take(self, wanted: int) -> tuple[Example, ...]:
        """Return the examples of the next lines, until they are as many as wanted."""
        examples: list[Example] = []
        while len(examples) < wanted and (record := next(self.lines, None)) is not None:
            windows = list(_encode(record, self.encoder, self.length))
            self.skipped += not windows
            for one in windows:
                if one.tokens in self._taken:
                    self.repeated += 1
                elif len(examples) < wanted:
                    self._taken.add(one.tokens)
                    examples.append(one)
        return tuple(examples)


def _encode(record: ExampleLine, encoder: Encoder, length: int) -> Iterator[Example]:
    """Yield a line's examples: of a text its windows, of a dialogue one, whose answer is cut at the length."""
    if record.prompt is None:
        tokens = encoder.encode_text(record.text)
        for start in range(0, len(tokens), length):
            if len(window := tokens[start : start + length]) > 1:
                yield Example(tuple(window), 1)
        return
    prompt, answer = encoder.encode_dialogue(record.prompt, record.text)
    if len(prompt) < length and prompt and answer:
        yield Example(tuple((prompt + answer)[:length]), len(prompt))


def check_same_dialogue(teacher: Encoder, student: Encoder) -> None:
    """Raise DistillationError unless a server puts prompts before the student as they were put in training."""
    pairs = {"chat template": (teacher.template, student.template)} | {
        name: (teacher.special.get(name), student.special.get(name)) for name in ("bos_token", "eos_token")
    }
    if different := [name for name, (one, other) in pairs.items() if one != other]:
        raise DistillationError(
            f"student: tokenizer_config.json: {', '.join(different)}: not the teacher's, so it would be served with"
            " other prompts than it is trained on; copy them from the teacher, or give lines with text alone"
        )
