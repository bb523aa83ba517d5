"""The tool `code_interpreter`, as prompts and answers have it. An add-on reads it of requests, and runs programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract.calculator import CodeRun
from r1plus_gateway.http.body.json_body import Json

KIND: Final = "code_interpreter"
TOOLS: Final = "tools"
DEFAULT_RUNS: Final = 4
MOST_RUNS: Final = 8
"""The bound of every request, so also of one whose gateway was killed: its rounds are settled without the add-on."""
FUNCTION: Final[Mapping[str, Json]] = {
    "name": KIND,
    "description": (
        "Run a Python program. You get what it prints and the value of its last expression. It has no files, no network"
        " and few modules. Nothing is kept between programs."
    ),
    "parameters": {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
        "additionalProperties": False,
    },
}
"""The tool as the model sees it."""


@dataclass(frozen=True, slots=True)
class CodeTool:
    """The tool, as a request asks for it."""

    most_runs: int = DEFAULT_RUNS
    is_forced: bool = False
    """Whether the model has to begin with a program."""


@dataclass(frozen=True, slots=True)
class CodeFailure:
    """Why a program has no result that is its own doing."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CodeCall:
    """A program of the model, and what came of it: a run or a failure. Neither: it is not run yet."""

    id: str
    code: str
    run: CodeRun | None = None
    failure: CodeFailure | None = None

    @property
    def text(self) -> str:
        """The program as the model and the client read it, without a NUL: no request may have one."""
        return replace_nul(self.code)

    @property
    def logs(self) -> str:
        """What the model and the client read: what was printed, then the value or the error, without a NUL."""
        if self.failure is not None:
            return f"The program has no result: {self.failure.message}"
        if self.run is None:
            return ""
        value = self.run.error or ("" if self.run.value in (None, "None") else self.run.value)
        between = "\n" if value and self.run.output and not self.run.output.endswith("\n") else ""
        return replace_nul(f"{self.run.output}{between}{value}")

    def describe(self) -> dict[str, Any]:
        """Return it as `r1plus.code` of an answer has it."""
        failure = None if self.failure is None else {"code": self.failure.code, "message": self.failure.message}
        run = self.run or CodeRun("", None, None)
        return {"id": self.id, "output": run.output, "value": run.value, "error": run.error, "failure": failure}


def replace_nul(text: str) -> str:
    """Return the text without a NUL: no request may have one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
