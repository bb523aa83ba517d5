"""The contract of all backends (`EngineContract`) on OpenVINO, in process: real tokenizers, several chat templates.

And that token ids of ordinary prompts are those of the first version: the verdicts of stored revisions rest on them.
"""

import ctypes
import gc
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.cache import cache_dir
from r1plus_contract.inference import Role
from r1plus_contract.suites.suite import load_suite
from r1plus_model_repo.backends.constraint.constraints import Constraint, parse_grammar, parse_schema
from r1plus_model_repo.backends.constraint.schema_memory import SchemaMemory
from r1plus_model_repo.backends.engine_loop import Handle
from r1plus_model_repo.backends.openvino.openvino_constraints import ConstraintCompiler
from r1plus_model_repo.backends.openvino.openvino_control import parse_pattern, read_split_strings
from r1plus_model_repo.backends.openvino.openvino_engine import EngineSettings, OpenVinoEngine
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, SchemaMemoryFullError
from r1plus_model_repo.importing.smollm2 import build_engines
from support.engine.server import ENGINES
from support.model_repo.engine_contract import ContractSubject, EngineContract, say
from support.model_repo.smollm2_templates import MESSAGE, TEMPLATES

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

Json = dict[str, Any]
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


def test_what_an_owner_compiles_is_bounded_and_what_the_engine_knows_goes_on(engine: OpenVinoEngine) -> None:
    known, other = parse_grammar('root ::= "a"'), parse_grammar('root ::= "b"')
    wrong = Constraint("grammar", "root ::= nothing", compiled_kib=60.0)
    memory = SchemaMemory(lambda: 0.0, most_bytes=128 * 1024, reserved_bytes=0)
    compiler = ConstraintCompiler(engine._settings.path, engine._tokenizer, engine._eos, memory)
    for _ in range(3):
        with pytest.raises(RefusedError, match=r"^grammar: the engine cannot compile the grammar: .*nothing"):
            compiler.compile(wrong, "a")
    compiler.compile(known, "a")
    with pytest.raises(SchemaMemoryFullError, match=r"^SchemaMemoryFull: grammar: the engine keeps 1 schemas"):
        compiler.compile(other, "a")
    compiler.compile(known, "a")
    compiler.replace_tokenizer(lambda: engine._tokenizer)
    compiler.compile(other, "a")


def _name() -> str:
    return secrets.token_hex(4)


def _build_object(count: int, schema: Json, *, is_required: bool = False) -> Json:
    names = [_name() for _ in range(count)]
    return {"type": "object", "properties": dict.fromkeys(names, schema), "required": names if is_required else []}


def _build_text(pattern: str) -> Json:
    return _build_object(20, {"type": "string", "pattern": pattern})


KINDS = {
    "values": lambda: {"enum": [_name() for _ in range(500)]},
    "required properties": lambda: _build_object(100, {"type": "string"}, is_required=True),
    "optional properties": lambda: _build_object(100, {"type": "string"}),
    "any properties": lambda: _build_object(100, {}),
    "bounded integers": lambda: _build_object(30, {"type": "integer", "minimum": 3, "maximum": 10**17 + 1}),
    "bounded numbers": lambda: _build_object(30, {"type": "number", "minimum": 0.25, "maximum": 10**17 + 1}),
    "long texts": lambda: _build_object(1, {"type": "string", "maxLength": 128}),
    "patterns of classes": lambda: _build_text("^" + "[^a-z]" * 20 + "$"),
    "patterns of escapes": lambda: _build_text("^" + r"\w\d\s" * 10 + "$"),
    "patterns of any character": lambda: _build_text("^" + "." * 40 + "$"),
    "addresses": lambda: _build_object(20, {"type": "string", "format": "ipv6"}),
    "times": lambda: _build_object(20, {"type": "string", "format": "date-time"}),
    "long arrays": lambda: {"type": "array", "items": _build_object(5, {}), "minItems": 1000, "maxItems": 1000},
    "a grammar of classes": lambda: f'root ::= "{_name()}" ' + "[^a-c] " * 500,
    "a grammar of repetitions": lambda: f'root ::= "{_name()}" [a-z]{{1,128}}',
}


@pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())
def test_what_a_schema_takes_is_estimated_from_above(engine: OpenVinoEngine, build: Callable[[], Json | str]) -> None:
    """What the whole process keeps of it, by the allocator: compiler, pipeline and trial together."""
    schemas = [build() for _ in range(3)]
    first, *others = (parse_grammar(one) if isinstance(one, str) else parse_schema(json.dumps(one)) for one in schemas)
    engine._memory.clear()  # All kinds together are more than one caller's share.
    _answer(engine, first)
    before = _count_allocated_bytes()
    for constraint in others:
        _answer(engine, constraint)
    kept = (_count_allocated_bytes() - before) / 1024 / len(others)
    assert kept <= others[0].compiled_kib <= 6 * kept


def test_a_renewal_frees_what_was_compiled_and_changes_no_answer(engine: OpenVinoEngine) -> None:
    constraint = parse_grammar('root ::= "yes" | "no"')
    answer = _answer(engine, constraint)
    waiting = engine.prepare(say((Role.USER, "Hi"), constraint=constraint))
    _answer(engine, parse_schema(json.dumps({"enum": [_name() for _ in range(1900)]})))
    before = _count_allocated_bytes()
    engine.renew()
    assert _count_allocated_bytes() < before - 2 * 2**20
    assert engine._memory.used_bytes == 0
    assert _generate(engine, engine.add(waiting)) == answer
    assert engine._memory.used_bytes == round(1024 * constraint.compiled_kib)


def _answer(engine: OpenVinoEngine, constraint: Constraint) -> str:
    return _generate(engine, engine.add(engine.prepare(say((Role.USER, "Hi"), constraint=constraint))))


def _generate(engine: OpenVinoEngine, handle: Handle) -> str:
    ids: list[int] = []
    reason = None
    while reason is None:
        engine.step()
        new, reason = handle.read()
        ids += new
    return engine.decode(ids)


class _Allocations(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _count_allocated_bytes() -> int:
    gc.collect()
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = _Allocations
    allocations = library.mallinfo2()
    return int(allocations.uordblks + allocations.hblkhd)


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
