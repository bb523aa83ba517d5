"""Texts and questions of the bench: English prose of Debian's perl-doc, and candidates that are in no golden suite."""

import hashlib
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from bench.knowledge.perl_faq import fetch_package, strip_marks
from bench.model.prompts import read_suite_prompts
from devcluster.cache import cache_dir
from r1plus_contract.atomic_files import replace_text
from r1plus_contract.suites.suite import Item, Suite
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.decoding import decode_greedily
from r1plus_model.training.healing import TrainingBatch
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_monitoring.curate.candidates import build_candidates, read_facts
from r1plus_training.engine_distil import load_compared_suites

ROOT: Final = Path(__file__).parents[3]
SUITES: Final = ROOT / "monitoring" / "suites"
MOST_ANSWER: Final = 24
LEAST_PARAGRAPH: Final = 60
MOST_CHARACTERS: Final = 6
"""Of a token in prose, on average; it is some four."""
ANSWERS_TOGETHER: Final = 32
TEXT_EVERY: Final = 4
"""Every so many steps train on prose instead of answers."""
TEXT_ROWS, TEXT_TOKENS, ANSWER_ROWS = 3, 256, 12


def read_prose(checkpoint: Path, limit: int, *, is_held_out: bool) -> Tensor:
    """Return so many ids of paragraphs of the manual's pages. A tenth of the pages is held out."""
    paragraphs: list[str] = []
    for page in sorted(fetch_package(cache_dir()).glob("usr/share/perl/*/pod/*.pod")):
        if (zlib.crc32(page.name.encode()) % 10 == 0) is is_held_out and not page.name.startswith("perl5"):
            paragraphs += _list_paragraphs(page.read_text(encoding="utf-8", errors="ignore"))
    text = "\n\n".join(paragraphs)[: limit * MOST_CHARACTERS]
    ids = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return torch.tensor(ids[:limit])


def _list_paragraphs(text: str) -> Iterator[str]:
    """Yield the prose of a page: no code, which is indented, and no command."""
    for block in text.split("\n\n"):
        if block[:1].isalpha() and len(block) >= LEAST_PARAGRAPH and block.isascii():
            yield " ".join(strip_marks(block).split())


def build_suite_index() -> SuiteIndex:
    """Return what healing does not train on: the questions of the shipped suites, and `list_own_candidates`."""
    shipped = load_compared_suites([])
    return SuiteIndex([*shipped, Suite(shipped[0].header, list_own_candidates())])


def list_own_candidates() -> tuple[Item, ...]:
    """Return candidates for a suite of a healed model's own: questions that nothing here trains on.

    Those that a golden suite has, and copying of words that no other question copies.
    """
    in_suites = read_suite_prompts()
    items = [*(item for item in build_candidates() if item.prompt in in_suites), *_list_copying_items()]
    return tuple(sorted(items, key=lambda item: item.id))


def _list_copying_items() -> Iterator[Item]:
    """Yield items in the forms of the curator's own, whose words are those of two tables."""
    used = {row[0] for table in ("plurals", "past_tenses") for row in read_facts(table)}
    rows = [row for table in ("opposites", "spanish", "french") for row in read_facts(table)]
    words = sorted({word for word, *_ in rows if word.isalpha() and word.islower()} - used)
    for number, word in enumerate(words):
        others = f"{words[number - 2]}, {words[number - 3]}"
        prompts = {
            "say": f'Say the word "{word}".',
            "first": f"What is the first word of this list: {word}, {others}?",
        }
        for kind, prompt in prompts.items():
            yield Item(f"own-{kind}-{word}", "copying", prompt, "contains", (word,))


def digest_texts(texts: Sequence[str]) -> str:
    """Return what tells files that were made of these texts from those of others."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Tokens of a question in its chat template, and of the teacher's answer with its end."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with the teacher's answer, as texts and as tokens."""

    prompt: str
    answer: str
    dialogue: Dialogue


def list_answered(
    teacher: R1PlusModel, tokens: HfTokens, prompts: Sequence[str], index: SuiteIndex, file: Path
) -> list[Answered]:
    """Return the questions with the teacher's answers, without those that hold one of the index.

    An answer may end with a question of its own. Answers are kept in the file.
    """
    by_prompt = {tuple(one.prompt): one for one in _answer_prompts(teacher, tokens, prompts, file)}
    answered = []
    for prompt in prompts:
        dialogue = by_prompt[tuple(tokens.encode_prompt(GenerationRequest(prompt=prompt)))]
        answer = tokens.decode(dialogue.answer).strip()
        if index.find(0, f"{prompt} {answer}") is None:
            answered.append(Answered(prompt, answer, dialogue))
    return answered


def _answer_prompts(teacher: R1PlusModel, tokens: HfTokens, prompts: Sequence[str], file: Path) -> list[Dialogue]:
    """Let the teacher answer; answers of a run that was killed are next to the file."""
    if file.exists():
        return _read_dialogues(file)
    ends = set(tokens.get_end_ids())
    encoded = sorted((tokens.encode_prompt(GenerationRequest(prompt=one)) for one in prompts), key=len)
    begun = file.with_suffix(".begun")
    dialogues = _read_dialogues(begun) if begun.exists() else []
    for begin in range(len(dialogues), len(encoded), ANSWERS_TOGETHER):
        part = encoded[begin : begin + ANSWERS_TOGETHER]
        answers = decode_greedily(teacher, part, MOST_ANSWER, lambda answer: answer[-1] in ends)
        dialogues += [Dialogue(prompt, answer) for prompt, answer in zip(part, answers, strict=True)]
        _write_dialogues(begun, dialogues)
        print(f"answers of the teacher: {len(dialogues)} of {len(encoded)}", flush=True)
    _write_dialogues(file, dialogues)
    begun.unlink(missing_ok=True)
    return dialogues


def _read_dialogues(file: Path) -> list[Dialogue]:
    return [Dialogue(**json.loads(line)) for line in file.read_text("utf-8").splitlines()]


def _write_dialogues(file: Path, dialogues: Sequence[Dialogue]) -> None:
    lines = (json.dumps({"prompt": one.prompt, "answer": one.answer}) for one in dialogues)
    replace_text(file, "".join(f"{line}\n" for line in lines))


def draw_batch(dialogues: Sequence[Dialogue], prose: Tensor, step: int) -> TrainingBatch:
    """Return the batch of a step: answers, and every fourth step prose."""
    if step % TEXT_EVERY == TEXT_EVERY - 1:
        begin = random.Random(step).randrange(len(prose) - TEXT_ROWS * TEXT_TOKENS)
        ids = prose[begin : begin + TEXT_ROWS * TEXT_TOKENS].view(TEXT_ROWS, TEXT_TOKENS)
        return TrainingBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    chosen = [dialogues[(step * ANSWER_ROWS + row) % len(dialogues)] for row in range(ANSWER_ROWS)]
    rows = [one.prompt + one.answer for one in chosen]
    longest = max(map(len, rows))
    mask = torch.tensor([[column < len(row) for column in range(longest)] for row in rows])
    return TrainingBatch(torch.tensor([row + [0] * (longest - len(row)) for row in rows]), mask)


def sample_items(suite: Suite, count: int) -> Suite:
    """Return the suite with so many of its items, evenly; all if `count` is 0."""
    if not count or count >= len(suite.items):
        return suite
    chosen = tuple(suite.items[number * len(suite.items) // count] for number in range(count))
    return Suite(suite.header, chosen)
