"""The contract of all backends (`EngineContract`) on OpenVINO, in process: real tokenizers, several chat templates.

And that token ids of ordinary prompts are those of the first version: the verdicts of stored revisions rest on them.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from r1plus_contract.inference import Role
from r1plus_contract.suite import load_suite
from r1plus_model_repo.backends.constraints import Constraint, parse_grammar
from r1plus_model_repo.backends.openvino_constraints import ConstraintCompiler
from r1plus_model_repo.backends.openvino_control import parse_pattern, read_split_strings
from r1plus_model_repo.backends.openvino_engine import EngineSettings, OpenVinoEngine
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from r1plus_model_repo.importing.smollm2 import build_engines
from support.engine.server import ENGINES
from support.model_repo.engine_contract import ContractSubject, EngineContract, say
from support.model_repo.smollm2_templates import MESSAGE, TEMPLATES

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

NAMES = sorted(name for name, spec in ENGINES.items() if spec.backend == "openvino")
CONTEXT = 1024
SUITES = sorted((Path(__file__).parents[2] / "monitoring" / "suites").glob("smollm2-*"))
FIRST_VERSION = "56db0864a11ef99c18e16d1d64a5bed5529fd29ef2bffa848b91999dfe521ebb"
"""sha256 over the token ids of all shipped suites' prompts, as commit 952a5c8d tokenised them."""


@pytest.fixture(scope="module", params=NAMES[:1])
def engine(request: pytest.FixtureRequest) -> OpenVinoEngine:
    return open_engine(request.param)


def open_engine(name: str) -> OpenVinoEngine:
    folder = build_engines(cache_dir() / "engines", print)[name].folder
    per_token = ENGINES[name].shape.kv_bytes_per_token
    return OpenVinoEngine(EngineSettings(folder, 2, CONTEXT, 0, per_token, 2))


# GenAI puts the system message before the user's where a template refuses it.
@pytest.fixture(params=TEMPLATES.values(), ids=TEMPLATES.keys())
def subject(request: pytest.FixtureRequest, engine: OpenVinoEngine) -> Iterator[ContractSubject]:
    tokenizer = engine._tokenizer
    own = tokenizer.get_original_chat_template()
    tokenizer.set_chat_template(request.param or own)
    yield ContractSubject(
        engine,
        lambda prompt: list(map(int, prompt.data[0])),
        {"<|im_start|>": 1, "<|im_end|>": 2},
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        CONTEXT,
    )
    tokenizer.set_chat_template(own)


class TestOpenVino(EngineContract):
    """OpenVINO GenAI."""


def test_what_a_process_compiles_is_bounded_and_what_it_knows_goes_on(engine: OpenVinoEngine) -> None:
    known, other = parse_grammar('root ::= "a"'), parse_grammar('root ::= "b"')
    wrong = Constraint("grammar", "root ::= nothing", nodes=3, repetitions=0)
    compiler = ConstraintCompiler(engine._settings.path, engine._tokenizer, engine._eos, most_bytes=64 * 1024)
    for _ in range(3):
        with pytest.raises(RefusedError, match=r"^grammar: the engine cannot compile the grammar: .*nothing"):
            compiler.compile(wrong)
    compiler.compile(known)
    with pytest.raises(RefusedError, match=r"^grammar: the engine has compiled 1 different schemas and grammars"):
        compiler.compile(other)
    compiler.compile(known)


def test_a_template_that_rejects_a_conversation_refuses_the_request(engine: OpenVinoEngine) -> None:
    tokenizer = engine._tokenizer
    own = tokenizer.get_original_chat_template()
    order = "{% for message in messages %}{% if message['role'] == 'assistant' and loop.first %}"
    tokenizer.set_chat_template(
        f"{order}{{{{ raise_exception('The user begins') }}}}{{% endif %}}{MESSAGE}{{% endfor %}}"
    )
    try:
        with pytest.raises(RefusedError, match=r"^messages: the engine's chat template rejects it: .*The user begins"):
            engine.prepare(say((Role.ASSISTANT, "Hi <|im_end|>")))
    finally:
        tokenizer.set_chat_template(own)


def test_token_ids_of_the_shipped_suites_are_those_of_the_first_version(engine: OpenVinoEngine) -> None:
    digest = hashlib.sha256()
    for folder in SUITES:
        suite = load_suite(*((folder / name).read_text() for name in ("suite.json", "items.jsonl")))
        for item in suite.items:
            request = GenerationRequest(item.prompt, suite.header.sampling.system, max_new_tokens=1)
            digest.update(json.dumps(engine.prepare(request).prompt.data[0].tolist()).encode())
    assert digest.hexdigest() == FIRST_VERSION


@pytest.mark.parametrize("name", NAMES)
def test_the_control_strings_of_an_engine_are_those_that_its_tokenizer_splits(name: str) -> None:
    folder = build_engines(cache_dir() / "engines", print)[name].folder
    strings = read_split_strings(folder)
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} < set(strings)
    assert len(strings) == 17


PATTERNS = {
    "as GenAI writes it of a GGUF": (r"(\<\|a\|\>)|(\<b\>)", ["<|a|>", "<b>"]),
    "as openvino_tokenizers writes it of Hugging Face's": (r"(?:\s*)(\<mask\>)|(\<a\>|\(\\)", ["<mask>", "<a>", "(\\"]),
    "none": ("", []),
}


@pytest.mark.parametrize(("pattern", "strings"), PATTERNS.values(), ids=PATTERNS.keys())
def test_the_strings_of_a_pattern(pattern: str, strings: list[str]) -> None:
    assert parse_pattern(pattern) == strings
