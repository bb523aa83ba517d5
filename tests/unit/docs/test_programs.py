"""The Python programs of the pages run as they are printed, against a gateway with a real store and a fake model."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.documents.process import running_reader_process
from support.gateway.fake_triton import FakeTriton, Inputs, Piece, serving
from support.gateway.process import GatewayProcess, running_process
from support.gateway.programs import ProgramRunner, running_programs
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOCS = Path(__file__).parents[3] / "docs"
CITY = {"name": "Stockholm", "country": "Sweden"}


async def answer_by_question(inputs: Inputs) -> AsyncIterator[Piece]:
    text = "The capital of Sweden is Stockholm."
    if "response_schema" in inputs:
        text = json.dumps(CITY)
    elif "Zurich" in json.dumps(inputs):
        text = "In Zurich a night may cost 210 francs [1]."
    words = text.split(" ")
    for count, word in enumerate(words, 1):
        yield Piece(word if count == len(words) else f"{word} ", count)
    yield Piece("", len(words), finish_reason="stop")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"data": {"hasKnowledge": True, "contentDays": 30}}
    capabilities = ["messages", "count_only", "response_schema"]
    async with (
        running_reader_process(folder) as documents,
        serving(FakeTriton(answer_by_question)) as pod,
        running_process(folder, pod, settings, documents=documents, capabilities=capabilities) as process,
    ):
        yield process


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def programs() -> AsyncIterator[ProgramRunner]:
    async with running_programs() as runner:
        yield runner


def read_blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def read_programs(page: str) -> list[str]:
    """Return the programs of a page that use OpenAI's client; what imports nothing goes on with the one before."""
    programs: list[str] = []
    for block in read_blocks(page, "python"):
        if "import" in block:
            programs.append(block)
        else:
            programs[-1] += block
    return [program for program in programs if "from openai" in program]


async def run_program(programs: ProgramRunner, gateway: GatewayProcess, program: str, folder: Path) -> str:
    key = await gateway.create_key(scopes=["end-users"])
    return await programs.run(program, folder, {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": key})


CAPITAL = "The capital of Sweden is Stockholm.\n"


@pytest.mark.unit_slow
@for_each("page, printed", {
    "gateway": ("gateway.md", [
        f"{CAPITAL}answered by credit-1@sha256:0123456789ab\n",
        CAPITAL,
        "name='Stockholm' country='Sweden'\n",
        "The capital of Sweden is Stockholm. completed {'revision': 'credit-1', ",
    ]),
    "tenant data": ("tenant-data.md", [CAPITAL * 2]),
})  # fmt: skip
async def test_each_program_of_a_page_prints_its_answer(
    programs: ProgramRunner, gateway: GatewayProcess, tmp_path: Path, page: str, printed: list[str]
) -> None:
    got = [await run_program(programs, gateway, program, tmp_path) for program in read_programs(page)]
    assert [text[: len(begin)] for text, begin in zip(got, printed, strict=True)] == printed


@pytest.mark.unit_slow
async def test_the_program_of_the_knowledge_page_cites_the_file_that_is_printed(
    programs: ProgramRunner, gateway: GatewayProcess, tmp_path: Path
) -> None:
    (handbook,) = read_blocks("knowledge.md", "markdown")
    (tmp_path / "handbook.md").write_text(handbook)
    (program,) = read_programs("knowledge.md")
    expected = re.sub(r"file_5f0c…|\s+", "", read_blocks("knowledge.md", "text")[0])
    for _ in range(2):
        got = await run_program(programs, gateway, program, tmp_path)
        assert re.sub(r"file_[0-9a-f]{8,}|\s+", "", got) == expected


@pytest.mark.unit_slow
async def test_a_program_that_fails_or_does_not_end_leaves_the_next_one_its_own_answer(
    programs: ProgramRunner, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="It had not ended after 1 s"):
        await programs.run("import time; time.sleep(600)", tmp_path, {}, seconds=1)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        await programs.run("1 / 0", tmp_path, {})
    assert await programs.run("import os; print(os.getcwd())", tmp_path, {}) == f"{tmp_path}\n"
