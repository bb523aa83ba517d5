"""Programs of a model in a real cluster: the calculator's container has a seccomp profile, a read-only root and a limit.

`make e2e STORY=gateway`. The model is too small to write a program; it copies the one in its question, as its examples show.
"""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from e2e import gateways
from e2e.gateway.conftest import MODEL, NAMESPACE, ServedTenant
from e2e.gateways import ApiKey
from e2e.waiting import wait_for
from support.gateway.example_programs import show_program

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(3600)]
TOOL: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
FORCED: Any = {"type": "code_interpreter"}
PROGRAMS = {
    "computes": ("987654 * 123456", "completed", "121931812224"),
    "opens a file": ("open('secrets') + 1", "completed", "OS function 'open' not implemented"),
    "wants the network": ("import socket", "completed", "No module named 'socket'"),
    "never ends": ("sum(range(10 ** 12)) + 1", "failed", "the code runs longer than it may"),
    "fills the memory": ("9 ** 9 ** 9 ** 9", "failed", "the code needs more memory than 128MB"),
}
"""Programs, the status of their calls, and what the model reads of them."""


def show_run(code: str, printed: str) -> list[Any]:
    """Return a question with a program, which was run, as an example."""
    return show_program(f"Run this program: {code}", code, printed)


EXAMPLES = [
    *show_run("2 * 3", "6"),
    *show_run("50 * 40", "2000"),
    *show_run("import math", ""),
    *show_run("len('abc') + 1", "4"),
    *show_run("10 ** 2", "100"),
]


@pytest.fixture(scope="module")
def client(served: ServedTenant, key: ApiKey) -> Iterator[openai.OpenAI]:
    """A client of a gateway that runs code."""
    served.configure(enabled=True, calculator=True, codeInterpreter=True)
    served.until_ready_pods(1, containers=["calculator"])
    served.until_ready()
    with gateways.reach(served.target, NAMESPACE) as url:
        served.until_answers(url, key)
        with gateways.open_client(url, key.secret) as opened:
            yield opened
    served.configure(enabled=True)


def run_program(client: openai.OpenAI, code: str) -> Any:
    """Let the model run a program; return the call as the answer has it."""
    question = {"role": "user", "content": f"Run this program: {code}"}
    answer = client.responses.create(
        model=MODEL,
        input=[*EXAMPLES, question],
        tools=[TOOL],
        tool_choice=FORCED,
        max_tool_calls=1,
        max_output_tokens=96,
    )
    call, message = answer.output
    assert message.type == "message"
    return call


@pytest.mark.parametrize(("code", "status", "logs"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_has_a_result_or_says_why_it_has_none(
    client: openai.OpenAI, code: str, status: str, logs: str
) -> None:
    call = run_program(client, code)
    print(call)
    assert (call.code, call.status) == (code, status)
    assert logs in call.outputs[0].logs


def test_switched_off_programs_are_refused_with_the_remedy(served: ServedTenant, key: ApiKey) -> None:
    served.configure(enabled=True)

    def find_refusal() -> str:
        try:
            with gateways.reach(served.target, NAMESPACE) as url, gateways.open_client(url, key.secret) as client:
                run_program(client, "2 * 3")
        except openai.InternalServerError as error:
            return str(error) if error.code == "code_interpreter_not_configured" else ""
        except openai.APIConnectionError:
            pass  # The pod is replaced.
        return ""

    refusal = wait_for(find_refusal, "programs are refused", lambda: gateways.describe_pods(served.kube, NAMESPACE))
    assert "set spec.gateway.codeInterpreter: true in the R1PlusTenant" in refusal
