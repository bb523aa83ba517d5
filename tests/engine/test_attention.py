"""Attention that leaves tokens out, in the real library: it is never silently dense, and a pool of its size suffices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster.cache import cache_dir
from r1plus_model_repo.backends.openvino.openvino_engine import BLOCK_TOKENS, EngineSettings, Eviction, OpenVinoEngine
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.catalog.attention import Attention
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_monitoring.curate.long_context import build_long_items
from support.engine.client import Client
from support.engine.server import ENGINES, Server, deliver, ending, serving

pytestmark = pytest.mark.timeout(1500)
brief = pytest.mark.triton
long = pytest.mark.triton_long

NAME = "smollm2-full-f16"
SPEC = ENGINES[NAME]
CONTEXT = 1024
NEW_TOKENS = 12
EVICTION = Eviction(32, 32, 96)
LONG = build_long_items(CONTEXT - NEW_TOKENS, 1)[0].prompt
SHORT = "What is the capital of Sweden?"
"""With the template 37 tokens: a few more than eviction always keeps at the start."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens, the log probability of each, and the blocks in use after each step."""

    ids: list[int]
    log_probabilities: list[float]
    blocks: list[float]


def open_engine(batch: int = 1, context: int = CONTEXT, **attention: Any) -> OpenVinoEngine:
    folder = build_engines(cache_dir() / "engines", print, [NAME])[NAME].folder
    return OpenVinoEngine(EngineSettings(folder, batch, context, 0, SPEC.shape.kv_bytes_per_token, 2, **attention))


def answer(engine: OpenVinoEngine, prompt: str) -> Answer:
    job = engine.prepare(GenerationRequest(prompt=prompt, max_new_tokens=NEW_TOKENS))
    job.sampling.config.logprobs = 1
    pool = engine._settings.kv_blocks
    handle = engine._pipeline.add_request(0, job.prompt, job.sampling.config)
    found = Answer([], [], [])
    while engine._pipeline.has_non_finished_requests():
        engine.step()
        found.blocks.append(engine._pipeline.get_metrics().cache_usage / 100 * pool)
        while handle.can_read():
            (part,) = handle.read().values()
            found.ids.extend(part.generated_ids)
            found.log_probabilities.extend(part.generated_log_probs)
    return found


@pytest.fixture(scope="module")
def dense() -> dict[str, Answer]:
    engine = open_engine()
    return {prompt: answer(engine, prompt) for prompt in (SHORT, LONG)}


@brief
def test_evicting_keeps_what_it_says_computes_the_same_again_and_leaves_short_prompts_alone(
    dense: dict[str, Answer],
) -> None:
    engine = open_engine(eviction=EVICTION)
    evicted, whole = answer(engine, LONG), dense[LONG]
    # The first token is generated while the prompt is whole.
    most = EVICTION.most / BLOCK_TOKENS + 1
    steps = range(len(whole.blocks) - NEW_TOKENS + 2, len(whole.blocks) - 1)
    assert max(evicted.blocks[step] for step in steps) <= most + 0.01
    assert min(whole.blocks[step] for step in steps) > 6 * most
    assert evicted.log_probabilities[:2] == whole.log_probabilities[:2]
    assert evicted.log_probabilities != whole.log_probabilities
    assert answer(engine, LONG).log_probabilities == evicted.log_probabilities
    assert answer(engine, SHORT).ids == dense[SHORT].ids


@long
def test_a_long_prompt_is_read_sparsely_and_a_prompt_of_one_block_is_not(dense: dict[str, Answer]) -> None:
    engine = open_engine(sparse_threshold=0.5)
    assert answer(engine, LONG).log_probabilities[0] != dense[LONG].log_probabilities[0]
    assert answer(engine, SHORT).log_probabilities == dense[SHORT].log_probabilities
    assert answer(open_engine(), LONG).log_probabilities == dense[LONG].log_probabilities, "the control"


@long
def test_a_pool_for_one_whole_prompt_answers_as_many_as_the_batch_at_once() -> None:
    """Requests that found no room would be dropped, or preempted and read again."""
    context, batch = 2048, 3
    engine = open_engine(batch, context, eviction=EVICTION)
    whole = EngineSettings(Path(), batch, context, 0, SPEC.shape.kv_bytes_per_token, 2).kv_blocks
    assert engine._settings.kv_blocks < 0.7 * whole
    prompts = [item.prompt for item in build_long_items(context - NEW_TOKENS, batch)]
    jobs = [engine.prepare(GenerationRequest(prompt=prompt, max_new_tokens=NEW_TOKENS)) for prompt in prompts]
    running = dict(enumerate(engine.add(job) for job in jobs))
    tokens: dict[int, list[int]] = {number: [] for number in running}
    steps = 0
    while running:
        engine.step()
        steps += 1
        for number, handle in list(running.items()):
            ids, reason = handle.read()
            tokens[number] += ids
            if reason is not None:
                del running[number]
    assert all(tokens.values())
    read = sum(job.prompt_tokens for job in jobs)
    assert steps <= read / engine._settings.step_tokens + 2 * batch + NEW_TOKENS, "something was read again"


BOTH = {
    "sparse": {"threshold": 0.9},
    "eviction": {"startTokens": EVICTION.start, "recentTokens": EVICTION.recent, "maxTokens": EVICTION.most},
}


def deliver_sparse(root: Path) -> Path:
    folder = build_engines(cache_dir() / "engines", print, [NAME])[NAME].folder
    spec = SPEC.model_copy(update={"attention": Attention.model_validate(BOTH)})
    return deliver(root, spec, folder, 2, CONTEXT)


@long
def test_it_serves_in_the_real_server(tmp_path: Path, installed: Path) -> None:
    with serving(Server(tmp_path, installed, deliver_sparse(tmp_path))) as server, Client(server.grpc) as ask:
        answers = ask.all([{"prompt": one, "max_new_tokens": 8} for one in (SHORT, LONG)])
    assert [one.error for one in answers] == [""] * 2
    assert "Stockholm" in answers[0].text


@long
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        pytest.param(
            '"sparse_threshold"', '"sparse_share"', "sparse_share: the image is older than the configuration", id="a setting that the image does not know"
        ),
        pytest.param(
            '"openvino-sparse"', '"openvino"', "backend: openvino-sparse goes with sparse_threshold", id="settings under the dense name"
        ),
    ],
)  # fmt: skip
def test_what_the_image_does_not_do_ends_the_server_and_is_never_dense(
    tmp_path: Path, installed: Path, before: str, after: str, words: str
) -> None:
    models = deliver_sparse(tmp_path)
    config = models / "r1plus" / "config.pbtxt"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))
    with ending(Server(tmp_path, installed, models)) as server:
        server.until_ended()
        assert "EngineIncompatible: OpenVINO GenAI" in server.log.read_text() and words in server.log.read_text()
