"""A model by a stranger's tool, from its file to an answer: imported by the command, loaded as a pod loads it, asked."""

import asyncio
import hashlib
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import gguf
import numpy
import pytest
from typer.testing import CliRunner

from devcluster.cache import cache_dir, locked, staged
from r1plus_cli.main import app
from r1plus_contract import inference
from r1plus_contract.engine.delivery import digest_folder, hash_file
from r1plus_contract.suites.suite import load_suite
from r1plus_model_repo.backends.openvino.openvino_engine import EngineSettings, OpenVinoEngine
from r1plus_model_repo.backends.requests import parse_request
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.gguf.requantise import Precision, requantise
from r1plus_model_repo.importing.openvino.ir import FILES, try_template
from r1plus_model_repo.importing.smollm2 import WEIGHTS, build_engines
from r1plus_model_repo.importing.source import fetch_weights
from r1plus_model_repo.kv_shape import read_kv_shape
from r1plus_monitoring.probe.client import TritonEngine
from r1plus_monitoring.probe.probes import Result, classify_reply
from support.engine.server import ENGINES, Server, deliver, serving
from support.model_repo import gguf_files

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]


def write_strange_model(folder: Path) -> None:
    """Write SmolLM2 as another tool would: in Q8_0, keys and tensors in another order, keys nobody knows."""
    requantise(
        fetch_weights(WEIGHTS, cache_dir() / "engines" / ".source", print), folder / "plain.gguf", Precision.Q8_0
    )
    reader = gguf.GGUFReader(folder / "plain.gguf")
    writer = gguf.GGUFWriter(folder / "strange.gguf", "llama")
    writer.add_custom_alignment(64)
    writer.add_string("stranger.built_with", "/home/x/tool 1.0")
    writer.add_array("stranger.numbers", list(range(5000)))
    for key, field in reversed(reader.fields.items()):
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
    for tensor in reversed(reader.tensors):
        writer.add_tensor(tensor.name, numpy.array(tensor.data), raw_dtype=tensor.tensor_type)
    gguf_files.finish(writer, folder / "strange.gguf")
    (folder / "plain.gguf").unlink()


@pytest.fixture(scope="module")
def strange() -> Path:
    """The file, from the cache: it is made again where what makes it has changed."""
    makers = (write_strange_model, sys.modules[requantise.__module__], gguf_files)
    key = hashlib.sha256("".join(map(inspect.getsource, makers)).encode()).hexdigest()[:16]
    folder = cache_dir() / "tests" / f"strange-model-{key}"
    with locked("strange-model"):
        if not folder.is_dir():
            for old in folder.parent.glob("strange-model-*"):
                shutil.rmtree(old)
            with staged(folder) as target:
                target.mkdir()
                write_strange_model(target)
    return folder / "strange.gguf"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, strange: Path) -> Path:
    out = tmp_path_factory.mktemp("imported")
    words = ["engine", "import", str(strange), "--name", "strange-lite", "--tier", "lite", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    return out / "strange-lite"


def test_the_manifest_is_what_the_file_holds(imported: Path) -> None:
    (engine,) = load_catalog(imported / "engine.yaml")
    shipped = ENGINES["smollm2-lite-q8-0"]
    assert engine.spec.architecture == shipped.architecture
    assert engine.spec.precision == shipped.precision
    assert engine.spec.files.sha256 == digest_folder(imported / "engine")
    assert read_kv_shape(imported / "engine").bytes_per_token == engine.spec.shape.kv_bytes_per_token


def test_the_provenance_names_source_and_converter(imported: Path, strange: Path) -> None:
    facts = json.loads((imported / "engine" / "engine.json").read_text())
    assert facts["source"]["file"] == "strange.gguf" and facts["source"]["bytes"] == strange.stat().st_size
    assert set(facts["converter"]) == {"gguf", "openvino", "openvino-genai"}


def test_its_files_are_those_that_the_plain_file_gives(imported: Path) -> None:
    plain = build_engines(cache_dir() / "engines", print)["smollm2-lite-q8-0"].folder
    assert {name: hash_file(imported / "engine" / name) for name in FILES} == {
        name: hash_file(plain / name) for name in FILES
    }


TEMPLATES = {
    "one that never ends": (
        "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}{{ messages[0].content }}",
        "took longer than 5 s",
        5,
    ),
    "one that drops the question": ("hello", "leaves the question out", 600),
    "one that the backend's interpreter does not know": (
        "{{ messages[0].content | nosuchfilter }}",
        "Value is not callable",
        600,
    ),
}


@pytest.mark.parametrize(("template", "message", "seconds"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_chat_template_that_parses_and_cannot_be_served_is_refused(
    imported: Path, tmp_path: Path, template: str, message: str, seconds: int
) -> None:
    for path in (imported / "engine").glob("*tokenizer*"):
        shutil.copyfile(path, tmp_path / path.name)
    xml = (tmp_path / "openvino_tokenizer.xml").read_text()
    try_template(tmp_path, "x.gguf", seconds=600)
    (tmp_path / "openvino_tokenizer.xml").write_text(
        re.sub('<chat_template value="[^"]*"', lambda _: f'<chat_template value="{template}"', xml)
    )
    with pytest.raises(ImportingError, match=rf"x\.gguf: tokenizer\.chat_template: .*{message}"):
        try_template(tmp_path, "x.gguf", seconds)


def test_it_answers(imported: Path) -> None:
    per_token = read_kv_shape(imported / "engine").bytes_per_token
    engine = OpenVinoEngine(EngineSettings(imported / "engine", 1, 512, 0, per_token, 2))
    ask = parse_request({inference.PROMPT: b"What is the capital of Sweden?", inference.MAX_NEW_TOKENS: 24}, 512)
    generation = engine.add(engine.prepare(ask))
    ids: list[int] = []
    reason = None
    for _ in range(200):
        engine.step()
        got, reason = generation.read()
        ids.extend(got)
        if reason is not None:
            break
    assert reason is not None
    assert "Stockholm" in engine.decode(ids)


SUITE = Path(__file__).parents[2] / "monitoring" / "suites" / "smollm2-lite-v1"
SCORED, BATCH, CONTEXT = 24, 8, 512


async def test_it_is_served_and_scored(imported: Path, installed: Path, tmp_path: Path) -> None:
    """As a pod serves it, and as a gate asks it.

    The beginning of the lite suite, by the monitor's client and scorers.
    """
    (engine,) = load_catalog(imported / "engine.yaml")
    models = deliver(tmp_path, engine.spec, imported / "engine", BATCH, CONTEXT)
    suite = load_suite(*((SUITE / name).read_text() for name in ("suite.json", "items.jsonl")))
    with serving(Server(tmp_path, installed, models)) as running:
        client = TritonEngine(running.http, running.grpc, timeout=600)
        items = suite.items[:SCORED]
        replies = await asyncio.gather(*(client.ask(item.prompt, suite.header.sampling) for item in items))
        await client.close()
    lost = [
        item.id for item, reply in zip(items, replies, strict=True) if classify_reply(item, reply) is not Result.CORRECT
    ]
    assert len(lost) <= 1, lost
