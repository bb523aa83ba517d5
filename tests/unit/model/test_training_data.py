"""Training data: what a line may be, which tokens count, and that no question of a golden suite is among them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from r1plus_contract.suites.suite import Item, Suite, load_suite
from r1plus_model.encoder import Encoder, read_encoder
from r1plus_model.errors import DistillationError
from r1plus_model.training.examples import Example, ExampleSet, build_examples, read_records
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_model_repo.importing.huggingface.gguf_tokenizer import Vocabulary, build_tokenizer
from support.golden_suites import files_of
from support.model_repo import tiny_gguf
from support.paths import TESTS
from support.tables import for_each

SPECIAL = {"bos": 0, "eos": 2}
END = 2


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    vocabulary = Vocabulary("smollm", tiny_gguf.TOKENS, tiny_gguf.TYPES, tiny_gguf.MERGES, SPECIAL, adds_bos=False)
    tokenizer = Tokenizer.from_str(json.dumps(build_tokenizer(vocabulary)))
    return Encoder(tokenizer, tiny_gguf.TEMPLATE, {"eos_token": "<|im_end|>"}, len(tiny_gguf.TOKENS))


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def suite_of(*prompts: str) -> Suite:
    items = tuple(Item(f"item-{n}", "loans", prompt, "contains", ("yes",)) for n, prompt in enumerate(prompts))
    files = files_of(items)
    return load_suite(files.header, files.items)


def build(path: Path, encoder: Encoder, length: int = 64, wanted: int = 1000, seed: int = 0) -> ExampleSet:
    return build_examples(read_records(path, ()), encoder, length, wanted, seed, lambda line: None)


# Which tokens count.


def test_of_a_dialogue_the_answer_counts_and_the_token_that_ends_it(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", *({"prompt": "hello", "answer": answer} for answer in ("12", "21")))
    example = build(path, encoder).training[0]
    decode = encoder.tokenizer.decode

    assert decode(example.tokens[: example.first], skip_special_tokens=False) == "<|im_start|>hello<|im_end|>"
    assert decode(example.tokens[example.first :], skip_special_tokens=False) in ("12<|im_end|>", "21<|im_end|>")
    assert example.tokens[-1] == END
    assert example.targets == 3


def test_of_a_text_all_tokens_count_but_the_first_of_each_window(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", {"text": "abcdefghij"}, {"text": "bcdefghijk"})
    examples = build(path, encoder, length=8).training

    assert [len(one.tokens) for one in examples] == [8, 2]
    assert [one.targets for one in examples] == [7, 1]


def test_an_answer_is_cut_at_the_length_and_a_prompt_that_fills_it_is_skipped(tmp_path: Path, encoder: Encoder) -> None:
    long = ({"prompt": "h" * (30 + n), "answer": "12"} for n in range(8))
    path = write(tmp_path / "data", *({"prompt": "h" * (1 + n), "answer": "w" * 40} for n in range(4)), *long)
    examples = build(path, encoder, length=12)

    assert {len(one.tokens) for one in examples.training} == {12}
    assert examples.skipped > 6


def test_lines_held_out_are_not_trained_on(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", *({"text": f"number {n} of many"} for n in range(100)))
    examples = build(path, encoder)

    assert (len(examples.training), len(examples.held_out)) == (95, 5)
    assert not set(examples.training) & set(examples.held_out)


REPEATS: dict[str, tuple[list[dict[str, str]], int]] = {
    "texts": ([{"text": f"number {n % 20} of many"} for n in range(100)], 80),
    "dialogues": ([{"prompt": f"number {n % 20}", "answer": "12"} for n in range(100)], 80),
    "first windows of long texts": ([{"text": f"{n % 10:020}{n:08}"} for n in range(20)], 10),
    "answers as far as the length": ([{"prompt": f"h{n % 20}", "answer": "w" * 20 + str(n)} for n in range(100)], 80),
}


@for_each("lines, repeated", REPEATS)
def test_what_is_held_out_is_not_trained_on_where_data_repeats(
    tmp_path: Path, encoder: Encoder, lines: list[dict[str, str]], repeated: int
) -> None:
    path, reported = write(tmp_path / "data", *lines), list[str]()
    for seed in range(5):
        examples = build_examples(read_records(path, ()), encoder, 20, 1000, seed, reported.append)
        training, held_out = ({one.tokens for one in part} for part in (examples.training, examples.held_out))

        assert not training & held_out
        assert (len(training), len(held_out)) == (len(examples.training), len(examples.held_out)), "each once"
        assert examples.repeated == repeated
    assert all(line.endswith(f"0 lines skipped, {repeated} repeats left out") for line in reported)


def test_a_twentieth_of_different_lines_is_held_out(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", *[{"text": f"number {n} of many"} for n in range(40)] * 5)
    examples = build(path, encoder)

    assert (len(examples.training), len(examples.held_out), examples.repeated) == (38, 2, 160)


def test_lines_that_are_all_one_are_refused_and_the_message_says_so(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", *[{"text": "hello world"}] * 10)

    with pytest.raises(DistillationError, match=r"10 lines give 0 examples for training and 1 .*, 9 repeats left out"):
        build(path, encoder)


def test_no_more_examples_are_read_than_the_steps_need(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", *({"text": f"number {n} of many"} for n in range(100)))

    assert len(build(path, encoder, wanted=7).training) == 7


def test_the_seed_decides_which_lines_are_taken(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "data", *({"text": f"number {n} of many"} for n in range(100)))
    first, again, other = (build(path, encoder, wanted=7, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other


# What a line may be.

LINE: dict[str, tuple[Any, str]] = {
    "no JSON": ("{text", "data: line 2: not JSON: "),
    "no UTF-8": ("\udcff", "data: line 2: not JSON: "),
    "a list": ([1], "data: line 2: has no fields; a line is"),
    "no known field": ({"question": "x"}, "data: line 2: has question; a line is"),
    "a field too many": ({"text": "x", "answer": "y"}, "data: line 2: has answer, text; a line is"),
    "a prompt without an answer": ({"prompt": "x"}, "data: line 2: has prompt; a line is"),
    "a number as text": ({"text": 3}, "data: line 2: text: 3 is no text; a line is"),
    "white space as text": ({"text": " \t"}, r"data: line 2: text: ' \\t' is no text; a line is"),
    "an empty answer": ({"prompt": "x", "answer": ""}, "data: line 2: answer: '' is no text; a line is"),
    "half a character": ('{"text": "a\\ud800"}', r"data: line 2: text: has half a character .*; remove it"),
    "deep nesting": ("[" * 100_000, "data: line 2: not JSON: "),
    "more than a MiB": ({"text": "x" * 2**20}, "data: line 2: 1048589 bytes, at most 1048576 are read; split the text"),
}


@for_each("line, message", LINE)
def test_a_line_is_refused_that_has(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "data"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_bytes(b'{"text": "good"}\n' + text.encode(errors="surrogateescape") + b"\n")

    with pytest.raises(DistillationError, match=message):
        read_records(path, ())


def test_blank_lines_do_not_count_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "data", "", {"text": "one"}, "  ", {"text": "two"})

    assert [record.line for record in read_records(path, ())] == [2, 4]


FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "data: .*/data is not a file; give a file of which a line is"),
    "empty": (b"", "data: .*/data has no line; a line is"),
    "only blank lines": (b"\n \n", "data: .*/data has no line; a line is"),
}


@for_each("content, message", FILES)
def test_a_file_is_refused_that_is(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "data").write_bytes(content)

    with pytest.raises(DistillationError, match=message):
        read_records(tmp_path / "data", ())


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "data").open("wb") as stream:
        stream.truncate(10 * 2**30)

    with pytest.raises(DistillationError, match="has 10240 MiB, at most 256 are read; take a sample of its lines"):
        read_records(tmp_path / "data", ())


TOO_LITTLE: dict[str, list[dict[str, str]]] = {
    "one line": [{"text": "hello"}],
    "prompts alone fill the length": [{"prompt": "h" * 80, "answer": "x"}] * 10,
    "one token a line": [{"text": "hello"}] * 10,
}


@for_each("lines", TOO_LITTLE)
def test_too_little_is_refused_when(tmp_path: Path, encoder: Encoder, lines: list[dict[str, str]]) -> None:
    path = write(tmp_path / "data", *lines)

    with pytest.raises(
        DistillationError, match=r"give 0 examples for training and .* give more lines, or a greater length"
    ):
        build(path, encoder)


TEMPLATES: dict[str, tuple[str, str]] = {
    "calls what is not there": ("{{ missing() }}", "'missing' is undefined"),
    "reaches into Python": ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
    "counts without end": ("{% for n in range(10**9) %}{% endfor %}", "Range too big"),
}


@for_each("template, reason", TEMPLATES)
def test_a_chat_template_is_refused_that(encoder: Encoder, template: str, reason: str) -> None:
    broken = replace(encoder, template=template)

    with pytest.raises(
        DistillationError, match=f"teacher: its chat template cannot be rendered: .*{reason}.*; correct it"
    ):
        broken.encode_dialogue("x", "y")


# Questions of a golden suite.

QUESTION = "What is the capital of Sweden?"
HIDDEN: dict[str, dict[str, str]] = {
    "as a prompt": {"prompt": QUESTION, "answer": "Stockholm"},
    "within a text": {"text": f"Many ask: {QUESTION} It is Stockholm."},
    "in other case, spacing and punctuation": {"text": "what  is the CAPITAL\nof sweden"},
    "after examples in a prompt": {"prompt": f"Q: 1 + 1?\nA: 2\nQ: {QUESTION}\nA:", "answer": "Stockholm"},
    "in an answer": {"prompt": "Ask me something", "answer": QUESTION},
    "with Markdown's emphasis": {"text": "- What is **the** _capital_ of `Sweden`?"},
    "with hyphens and dashes": {"text": "What is the capital-of – Sweden?"},
    "with characters that nobody sees": {"text": "What is\u200b the cap\u00adital of Sweden?"},
    "in wide letters": {"text": "\uff37hat is the capital of Sweden?"},
    "after Chinese without a space": {"text": "问What is the capital of Sweden?"},
}


@for_each("line", HIDDEN)
def test_a_question_of_a_suite_is_found(tmp_path: Path, line: dict[str, str]) -> None:
    path = write(tmp_path / "data", {"text": "good"}, line)

    with pytest.raises(
        DistillationError,
        match=r"1 of 2 lines have questions of a golden suite \(line 2 has bank-v1/item-1\): .* remove",
    ):
        read_records(path, (suite_of("How many legs has a cat?", QUESTION),))


FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "a letter of two characters": ("Wie hei\u00dfen Z\u00fcge?", {"text": "Wie heissen Zu\u0308ge?"}),
    "two words as a prompt": ("Hi there", {"prompt": "Hi there!", "answer": "Hello"}),
    "arithmetic without spaces": ("What is 17 * -3?", {"text": "What is 17*-3?"}),
    "a difference in other spacing": ("What is 17 - 3?", {"text": "What is 17 -3?"}),
    "a difference with a minus sign": ("What is 17 - 3?", {"text": "What is 17 \N{MINUS SIGN} 3?"}),
    "a difference with a dash": ("What is 17 - 3?", {"text": "What is 17\N{EN DASH}3?"}),
    "a negative number with a minus sign": ("What is 17 * -3?", {"text": "What is 17 * \N{MINUS SIGN}3?"}),
    "a product with a sign of its own": ("What is 17 * 3?", {"text": "What is 17 \N{MULTIPLICATION SIGN} 3?"}),
    "a product with an x": ("What is 17 x 3?", {"text": "What is 17*3?"}),
    "a product with an X and no spaces": ("What is 17 x 3?", {"text": "What is 17X3?"}),
    "a product of a variable": ("Solve 2x - 3 = 5", {"text": "Solve 2x-3=5"}),
    "a power": ("What is 3x^2 + 5?", {"text": "What is 3x² + 5?"}),
    "a quotient": ("What is 18 / 3?", {"text": "What is 18 \N{DIVISION SIGN} 3?"}),
    "Chinese, within a text": ("法国的首都是哪里?", {"text": "很多人问:法国的首都是哪里?是巴黎。"}),
    "Chinese, with an answer": ("法国的首都是哪里?", {"prompt": "法国的首都是哪里?", "answer": "巴黎"}),
    "Thai, within a text": ("เมืองหลวงของไทยคืออะไร", {"text": "ถาม: เมืองหลวงของไทยคืออะไร ตอบ"}),
    "a dash in Chinese": ("法国的首都是哪里?", {"text": "法国的首都\N{EM DASH}是哪里?"}),
}


@for_each("question, line", FORMS)
def test_a_question_is_found_in_another_form(tmp_path: Path, question: str, line: dict[str, str]) -> None:
    path = write(tmp_path / "data", line)

    with pytest.raises(DistillationError, match=r"line 1 has bank-v1/item-0"):
        read_records(path, (suite_of(question),))


CALCULATIONS: dict[str, tuple[str, str]] = {
    "another sign": ("What is 17 * 3?", "What is 17 + 3?"),
    "a power": ("What is 2 ** 4?", "What is 2 * 4?"),
    "a negative number": ("What is -3 + 5?", "What is 3 + 5?"),
    "another sign that is no ASCII": ("What is 17 \N{MINUS SIGN} 3?", "What is 17 \N{MULTIPLICATION SIGN} 3?"),
    "a power that looks like a product": ("Calculate 3 * 2 + 5", "Calculate 3x² + 5"),
    "a negative number in Chinese": ("计算-3+5等于多少", "计算3+5等于多少"),
    "a short word in Japanese": ("ありがとう", "昨日はありがとうございました。"),
    "Chinese with another word": ("法国的首都是哪里?", "德国的首都是哪里?"),
    "no word at all": ("?!", "!?"),
    "another sign between letters": ("Solve a + x = 3", "Solve a - x = 3"),
}


@for_each("question, text", CALCULATIONS)
def test_another_calculation_is_another_question(tmp_path: Path, question: str, text: str) -> None:
    assert read_records(write(tmp_path / "data", {"text": text}), (suite_of(question),))


OTHERS: dict[str, str] = {
    "another country": "What is the capital of Norway?",
    "a part of the question": "What is the capital",
    "words between": "What is, they asked, the capital of Sweden?",
    "another sign": "What is 17-9?",
}


@for_each("text", OTHERS)
def test_a_text_is_no_question_of_a_suite_with(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "data", {"text": text})

    assert read_records(path, (suite_of(QUESTION, "What is 17+9?"),))


def test_a_question_of_one_word_is_refused_as_a_whole_text_only() -> None:
    index = SuiteIndex((suite_of("Hello!"),))

    assert index.find(1, "hello") is not None
    assert index.find(1, "hello world") is None


def test_many_lines_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data", *[{"text": QUESTION}] * 9)

    with pytest.raises(DistillationError, match=r"9 of 9 lines .* line 5 has bank-v1/item-0 and 4 more\)"):
        read_records(path, (suite_of(QUESTION),))


def test_each_question_of_the_shipped_suites_is_found() -> None:
    folders = sorted((TESTS.parent / "monitoring" / "suites").glob("*-v1"))
    assert folders
    for folder in folders:
        suite = load_suite((folder / "suite.json").read_text(), (folder / "items.jsonl").read_text())
        index = SuiteIndex((suite,))
        missed = [item.id for item in suite.items if index.find(1, f"{item.prompt} {item.answers[0]}") is None]
        assert missed == []


# The teacher's tokenizer.

TOKENIZERS: dict[str, tuple[str, str | None, str]] = {
    "no tokenizer.json": ("tokenizer.json", None, "tokenizer.json is missing: only such tokenizers are read"),
    "a broken one": ("tokenizer.json", "{}", "tokenizer.json cannot be read: .*; get the file again"),
    "no template": ("tokenizer_config.json", '{"eos_token": "<|im_end|>"}', "chat_template: not one text"),
    "settings that are a list": ("tokenizer_config.json", "[]", "tokenizer_config.json: not a JSON object; get the"),
    "settings nested without end": ("tokenizer_config.json", "[" * 10**5, "tokenizer_config.json: cannot be read"),
    "no end": ("tokenizer_config.json", '{"chat_template": "x"}', "eos_token: missing, so answers would not end"),
}


@for_each("name, content, message", TOKENIZERS)
def test_a_teacher_is_refused_that_has(
    tmp_path: Path, encoder: Encoder, name: str, content: str | None, message: str
) -> None:
    encoder.tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"chat_template": "x", "eos_token": {"content": "<|im_end|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_encoder(tmp_path, 300).special == {"eos_token": "<|im_end|>"}
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)

    with pytest.raises(DistillationError, match=message):
        read_encoder(tmp_path, 300)


def test_an_end_that_the_vocabulary_lacks_is_refused(encoder: Encoder) -> None:
    """It would be learnt as a text of several tokens, with which no server ends an answer."""
    other = replace(encoder, special={"eos_token": "<|end|>"})

    with pytest.raises(DistillationError, match=r"eos_token: '<\|end\|>' is no token of tokenizer.json, so answers"):
        other.encode_dialogue("hello", "12")


TEXTS: dict[str, Callable[[Encoder], object]] = {
    "a text": lambda encoder: encoder.encode_text("hello<|im_end|>"),
    "a prompt": lambda encoder: encoder.encode_prompt("hello"),
    "an answer": lambda encoder: encoder.encode_dialogue("", "12"),
}


@for_each("encode", TEXTS)
def test_a_token_without_an_embedding_is_refused_in(encoder: Encoder, encode: Callable[[Encoder], object]) -> None:
    small = replace(encoder, vocabulary=END, role="student")

    with pytest.raises(
        DistillationError,
        match=r"^student: tokenizer.json: '.*' is token \d+, and the model has 2 .*; give the model's",
    ):
        encode(small)


def test_an_example_has_as_many_targets_as_tokens_that_count() -> None:
    assert Example((5, 6, 7, 8), 3).targets == 1
