"""`math_mode` on questions in prose, through a real gateway, calculator and tritonserver: what each part gets right.

Scored apart: the way to an expression (`route`), the calculated result, and the model's prose, with and without
`math_mode`. A wrong result that is called `verified` must not occur.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from bench.math.prose import Question
from bench.running import Progress
from bench.serving.__main__ import CONTEXT, serve_engine
from devcluster.cache import cache_dir
from r1plus_assistant.calculation.agreement import compare_prose
from r1plus_assistant.calculation.client import SocketCalculator
from r1plus_model_repo.importing.shipped import build_shipped_engine
from support.calculator.process import running_calculator_process
from support.gateway.fake_triton import FakeTriton, answer
from support.gateway.rig import Rig, running_before

MOST_NEW_TOKENS: Final = 60
AT_ONCE: Final = 4
CAPABILITIES: Final = ["messages", "count_only", "response_schema"]


@dataclass(slots=True)
class ProseScore:
    """How many questions went right, by kind: `translation`, `units`, `none`."""

    asked: Counter[str] = field(default_factory=Counter)
    routed: Counter[str] = field(default_factory=Counter)
    """The way that was meant; of `none`: nothing was calculated."""
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """A result that is not the answer."""
    wrong_verified: int = 0
    prose: Counter[str] = field(default_factory=Counter)
    plain_prose: Counter[str] = field(default_factory=Counter)
    """Without `math_mode`."""
    flagged: int = 0
    """Prose without the result that the calculator gave, and said to be so."""
    unflagged: int = 0
    """The same, and not said."""
    skips: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)

    def add(self, question: Question, body: Any, plain: Any) -> None:
        """Score one question's two answers; `plain` is None where the prose is not scored."""
        kind, report = question.kind, body["r1plus"]
        self.asked[kind] += 1
        text = body["choices"][0]["message"]["content"]
        if question.answer is not None and plain is not None:
            self.prose[kind] += has_number(text, question.answer)
            self.plain_prose[kind] += has_number(plain["choices"][0]["message"]["content"], question.answer)
        if report["math_skipped"]:
            self.skips[f"{kind} {report['math_skipped']['code']}"] += 1
        entries = report["math"]
        route = entries[0]["route"] if entries else "none"
        self.routed[kind] += route == kind or (kind == "none" and not entries)
        for entry in entries:
            self._add_entry(question, entry, text)

    def _add_entry(self, question: Question, entry: Any, text: str) -> None:
        exact = entry["exact"]
        if exact is None:
            return
        is_right = question.answer is not None and read_exact(exact) == question.answer
        is_right = is_right and (not question.unit or entry["unit"] == question.unit)
        self.right[question.kind] += is_right
        self.wrong[question.kind] += not is_right
        self.wrong_verified += entry["verified"] and not is_right
        if not is_right:
            self.misses.append(f"{question.text} -> {entry['expression']} = {exact} {entry['unit'] or ''}")
        if compare_prose(text, exact, entry["numeric"]) is False:
            self.flagged += entry["agrees"] is False
            self.unflagged += entry["agrees"] is not False

    def describe(self, *, has_prose: bool) -> dict[str, Any]:
        """Return the figures, without those of the prose where it is not scored."""
        figures: dict[str, Any] = {}
        for kind, asked in self.asked.items():
            figures |= {f"{kind}_asked": asked, f"{kind}_routed": self.routed[kind]}
            if kind != "none":
                figures[f"{kind}_right"] = self.right[kind]
            if kind != "none" and has_prose:
                figures |= {
                    f"{kind}_prose_right": self.prose[kind],
                    f"{kind}_plain_prose_right": self.plain_prose[kind],
                }
            figures[f"{kind}_wrong"] = self.wrong[kind]
        figures["wrong_verified"] = self.wrong_verified
        if has_prose:
            figures |= {"flagged": self.flagged, "unflagged": self.unflagged}
        return {**figures, "skips": dict(self.skips.most_common())}


def read_exact(exact: str) -> Fraction | None:
    """Return a result as a number; None if it is another one."""
    try:
        return Fraction(exact)
    except ValueError:
        return None


def has_number(text: str, number: Fraction) -> bool:
    """Return whether a text has a number, to its digits."""
    return compare_prose(text, str(number), str(float(number))) is True


@asynccontextmanager
async def running_math_gateway(folder: Path, engine: str) -> AsyncIterator[Rig]:
    """Run a gateway with a calculator before tritonserver with an engine."""
    with contextlib.ExitStack() as stack:
        spec, build = build_shipped_engine(engine, cache_dir() / "engines", lambda line: None)
        server = stack.enter_context(serve_engine(spec, build.folder))
        pod = FakeTriton(answer())
        pod.port = int(server.grpc.rpartition(":")[2])
        async with (
            running_calculator_process(folder) as calculator,
            running_before(
                folder,
                pod,
                calculator=SocketCalculator(str(calculator)),
                contextTokens=CONTEXT,
                batch=AT_ONCE,
                capabilities=CAPABILITIES,
            ) as rig,
        ):
            yield rig


async def ask(rig: Rig, text: str, *, has_math: bool, most_new_tokens: int = MOST_NEW_TOKENS) -> Any:
    """Ask one question; return the answer."""
    async with rig.chat(text, math_mode=has_math, max_tokens=most_new_tokens) as response:
        body = await response.json()
        if response.status != 200:
            raise RuntimeError(f"the gateway refused {text!r}: {body}")
        return body


async def score_questions(
    rig: Rig, questions: Iterable[Question], progress: Progress, *, has_prose: bool
) -> ProseScore:
    """Ask each question with and without `math_mode`; without prose for its way and result alone.

    One without an answer in time is not scored.
    """
    result, waiting = ProseScore(), iter(questions)

    async def ask_in_turn() -> None:
        for question in waiting:
            try:
                body = await ask(rig, question.text, has_math=True, most_new_tokens=MOST_NEW_TOKENS if has_prose else 1)
                result.add(question, body, await ask(rig, question.text, has_math=False) if has_prose else None)
            except TimeoutError:
                progress.add(question.text)
            else:
                progress.add()

    await asyncio.gather(*[ask_in_turn() for _ in range(AT_ONCE // 2)])
    return result


async def run_math_mode(
    folder: Path, engine: str, halves: Mapping[str, Sequence[Question]], *, shows_misses: bool, has_prose: bool
) -> dict[str, Any]:
    """Ask the questions of each half; return the figures, which begin with the half's name."""
    figures: dict[str, Any] = {"engine": engine}
    async with running_math_gateway(folder, engine) as rig:
        for name, questions in halves.items():
            progress = Progress(f"prose, {name}", len(questions))
            result = await score_questions(rig, questions, progress, has_prose=has_prose)
            figures |= {f"{name}_{key}": value for key, value in result.describe(has_prose=has_prose).items()}
            figures[f"{name}_timed_out"] = len(progress.timed_out)
            if shows_misses:
                print(*result.misses, sep="\n", flush=True)
    return figures
