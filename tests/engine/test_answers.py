"""What a client gets from the served engine: pieces, reasons, counts, characters, stop strings, seeds, refusals."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest

from support.engine.client import Answer, Client
from support.engine.server import CONTEXT, Server
from support.waiting import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

REPOSITORY = Path(__file__).parents[2]
STORY = "Tell me a long story about a lighthouse."


def test_an_answer_streams_in_pieces_and_ends_with_reason_and_counts(ask: Client) -> None:
    answer = ask("What is the capital of France?", max_new_tokens=24)
    assert len(answer.pieces) > 2
    assert "Paris" in answer.text
    assert answer.reason == "stop"
    assert answer.prompt_tokens > 10
    assert 2 < answer.tokens <= 24


def test_the_example_of_the_documentation_prints_an_answer(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    text = (REPOSITORY / "docs/calling.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "credit.team-credit.svc:8001" in example
    exec(compile(example.replace("credit.team-credit.svc:8001", server.grpc), "calling.md", "exec"), {})
    assert "Stockholm" in capsys.readouterr().out


def test_an_answer_that_reaches_the_limit_says_so(ask: Client) -> None:
    answer = ask(STORY, max_new_tokens=7)
    assert (answer.reason, answer.tokens) == ("length", 7)


def test_without_a_limit_the_answer_may_fill_what_the_context_leaves(ask: Client) -> None:
    prompt = "word " * (CONTEXT - 60)
    answer = ask(prompt)
    assert answer.error == ""
    assert answer.prompt_tokens + answer.tokens <= CONTEXT


def test_the_chat_template_is_applied_unless_the_prompt_is_raw(ask: Client) -> None:
    chat = ask("Hello", max_new_tokens=1)
    raw = ask("Hello", raw_prompt=True, max_new_tokens=1)
    assert raw.prompt_tokens == 1
    assert chat.prompt_tokens > 20


def test_the_system_message_takes_the_place_of_the_templates_own(ask: Client) -> None:
    short = ask("Hello", system="Hi.", max_new_tokens=1)
    long = ask("Hello", system="Hi. " * 50, max_new_tokens=1)
    assert long.prompt_tokens - short.prompt_tokens >= 49 * 2


def test_greedy_answers_are_the_same_every_time(ask: Client) -> None:
    assert len({ask(STORY, max_new_tokens=24).text for _ in range(3)}) == 1


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the capital of France?"},
]


def test_messages_are_answered_as_the_same_prompt_is(ask: Client) -> None:
    single = ask("What is the capital of France?", system="Be brief.", max_new_tokens=16)
    conversation = ask(messages=CONVERSATION, max_new_tokens=16)
    assert (conversation.text, conversation.prompt_tokens) == (single.text, single.prompt_tokens)
    assert conversation.error == ""


def test_a_conversation_is_continued(ask: Client) -> None:
    turns = [{"role": "assistant", "content": "Paris."}, {"role": "user", "content": "What is the capital of Sweden?"}]
    assert "Stockholm" in ask(messages=[CONVERSATION[1], *turns], max_new_tokens=24).text


def test_the_first_response_has_the_tokens_of_the_prompt_and_so_does_the_last(ask: Client) -> None:
    answer = ask(STORY, max_new_tokens=8)
    assert len(answer.pieces) > 2
    assert answer.first_prompt_tokens == answer.prompt_tokens > 10


class TestCountOnly:
    """How long a prompt is, without an answer."""

    def test_the_count_is_what_an_answer_reports(self, ask: Client, server: Server) -> None:
        answered, before = ask(messages=CONVERSATION, max_new_tokens=1), counts(server)
        counted = ask(messages=CONVERSATION, count_only=True)
        assert (counted.prompt_tokens, counted.tokens, counted.text) == (answered.prompt_tokens, 0, "")
        assert (counted.reason, len(counted.pieces)) == ("stop", 1)
        wait_until(lambda: counts(server) == {**before, "counted": before["counted"] + 1}, "only `counted` has grown")

    def test_a_prompt_beyond_the_context_is_counted(self, ask: Client) -> None:
        assert ask("word " * 2000, raw_prompt=True, count_only=True).prompt_tokens == 2001

    def test_nothing_is_counted_of_what_is_wrong(self, ask: Client) -> None:
        assert "messages[0].role: 'bot'" in ask(messages=[{"role": "bot", "content": "x"}], count_only=True).error


def counts(server: Server) -> dict[str, float]:
    """Return what the server has counted: requests by result, and tokens."""
    tokens = {
        direction: server.metric(f'r1plus_engine_tokens_total{{direction="{direction}"}}')
        for direction in ("prompt", "completion")
    }
    return {result: server.requests(result) for result in ("ok", "counted", "refused")} | tokens


class TestConstraints:
    """Answers that a schema or a grammar describes; a wrong one is an error of its request alone."""

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "name": {"enum": ["Bob", "Eve"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }

    def test_an_answer_is_what_the_schema_describes(self, ask: Client) -> None:
        prompts = ("Tell me of Bob, 7 years old.", "Answer in JSON.", "Hello!")
        questions = [{"prompt": prompt, "response_schema": self.SCHEMA, "max_new_tokens": 120} for prompt in prompts]
        answers = ask.all(questions)
        assert {answer.error for answer in answers} == {""}
        # A small model may write white space, which JSON allows, until its tokens are used up.
        whole = [answer for answer in answers if answer.reason == "stop"]
        assert whole
        for answer in whole:
            jsonschema.validate(json.loads(answer.text), self.SCHEMA)

    def test_an_answer_is_what_the_grammar_describes(self, ask: Client) -> None:
        grammar = 'root ::= ("yes" | "no") ", " [0-9]{3}'
        answer = ask("Is the sky blue?", grammar=grammar)
        assert re.fullmatch(r"(yes|no), \d{3}", answer.text), answer
        assert answer.reason == "stop"

    WRONG: ClassVar[dict[str, dict[str, Any]]] = {
        "a schema out of bounds": {"response_schema": {"maxLength": 10_000}},
        "a recursive schema": {"response_schema": {"items": {"$ref": "#"}}},
        "a remote reference": {"response_schema": {"$ref": "http://example.com/schema.json"}},
        "a schema that nothing fulfils": {"response_schema": {"type": "integer", "minimum": 5, "maximum": 2}},
        "an unknown type": {"response_schema": {"type": "colour"}},
        "a pattern that does not parse": {"response_schema": {"type": "string", "pattern": "("}},
        "a number beyond all": {"response_schema": {"type": "integer", "maximum": 10**30}},
        "a grammar without a root": {"grammar": 'a ::= "a"'},
        "an undefined rule": {"grammar": "root ::= a"},
        "a grammar that does not parse": {"grammar": 'root ::= "a'},
    }

    @pytest.mark.parametrize("given", WRONG.values(), ids=WRONG.keys())
    def test_a_wrong_one_disturbs_nobody(self, ask: Client, server: Server, given: dict[str, Any]) -> None:
        beside = ask(STORY, max_new_tokens=12).text
        running = ask.begin(STORY, max_new_tokens=12)
        with Client(server.grpc) as other:
            answer = other("Hello", **given)
            assert all(name in answer.error for name in given), answer.error
            assert answer.pieces == []
            assert other("Hello", max_new_tokens=2).error == ""
        assert ask.take_until_ended(running).text == beside

    def test_constraints_beside_each_other_and_beside_none(self, ask: Client) -> None:
        plain = ask(STORY, max_new_tokens=12).text
        grammars = [f'root ::= "{word}"' for word in ("alpha", "beta", "gamma")]
        questions = [{"prompt": STORY, "grammar": grammar} for grammar in grammars]
        answers = ask.all([*questions, {"prompt": STORY, "max_new_tokens": 12}])
        assert [answer.text for answer in answers] == ["alpha", "beta", "gamma", plain]

    def test_while_one_is_compiled_others_are_accepted_and_answered(self, ask: Client) -> None:
        running = ask.begin(STORY, max_new_tokens=400)
        ask.take()
        constrained = ask.begin("Hello", grammar='root ::= [^"]{1,127}', max_new_tokens=2)
        counted = ask.begin("Hello", count_only=True)
        ask.take_until_ended(constrained)
        ask.hang_up()
        assert constrained.error == ""
        assert counted.ended_at < constrained.came_at[0]
        assert any(constrained.begun_at < at < constrained.came_at[0] for at in running.came_at)


class TestRequestIds:
    """Triton's request id, in errors and in the log."""

    def test_an_error_and_the_log_name_the_request(self, ask: Client, server: Server) -> None:
        answer = ask("Hello", request_id="abc-123", max_new_tokens=0)
        assert answer.error.endswith("max_new_tokens: 0 is less than 1 (request abc-123)")
        assert "Request abc-123 was refused\n" in server.log.read_text()

    def test_a_long_one_and_one_of_control_characters_are_cut(self, ask: Client, server: Server) -> None:
        answer = ask("Hello", request_id="x\ny" + "z" * 1000, max_new_tokens=0)
        assert answer.error.endswith(f"(request x?y{'z' * 125})")
        assert "x\ny" not in server.log.read_text()


class TestCharacters:
    """Multi-byte characters are never split: what a client joins is what the model said."""

    SCRIPTS = ("Repeat: 😀🎉🚀🌍", "Repeat after me: 世界你好", "Repeat: é à ü ñ", "Repeat: 👩‍👩‍👧‍👦")

    @pytest.mark.parametrize("prompt", SCRIPTS)
    def test_every_piece_is_whole(self, ask: Client, prompt: str) -> None:
        for seed in range(3):
            answer = ask(prompt, max_new_tokens=24, temperature=1.0, seed=seed)
            assert (answer.error, bool(answer.text)) == ("", True)
            assert "\ufffd" not in answer.text

    def test_an_emoji_of_several_tokens_arrives(self, ask: Client) -> None:
        text = "🚀🌍🎉🚀🌍🎉🚀🌍🎉🚀🌍🎉"
        answer = ask(text, raw_prompt=True, max_new_tokens=24)
        assert set(answer.text) & set("🚀🌍🎉")


class TestStopStrings:
    """Generation ends before the first that appears, also across token borders."""

    @pytest.fixture
    def plain(self, ask: Client) -> Answer:
        return ask(STORY, max_new_tokens=48)

    @pytest.mark.parametrize(("start", "length"), [(10, 1), (12, 5), (20, 9), (30, 17)], ids=str)
    def test_a_stop_string_anywhere_ends_the_answer_before_it(
        self, ask: Client, plain: Answer, start: int, length: int
    ) -> None:
        stop = plain.text[start : start + length]
        answer = ask(STORY, max_new_tokens=48, stop=["never said", stop])
        assert answer.text == plain.text[: plain.text.index(stop)]
        assert answer.reason == "stop"
        assert answer.tokens < 48

    def test_a_stop_string_that_only_begins_is_given_out(self, ask: Client, plain: Answer) -> None:
        almost = plain.text[-4:] + "\x01"
        assert ask(STORY, max_new_tokens=48, stop=[almost]).text == plain.text


class TestSeeds:
    """Sampling is repeatable by its seed, in the same company (another batch rounds otherwise, and a draw may tip)."""

    QUESTION: ClassVar[dict[str, Any]] = {"prompt": STORY, "max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95}

    def test_the_same_seed_gives_the_same_answer(self, ask: Client) -> None:
        assert ask(**self.QUESTION, seed=7).text == ask(**self.QUESTION, seed=7).text

    def test_seeds_of_one_batch_do_not_disturb_each_other(self, ask: Client) -> None:
        answers = ask.all([{**self.QUESTION, "seed": seed} for seed in (8, 9, 7)])
        assert len({answer.text for answer in answers}) == 3

    def test_without_a_seed_answers_differ(self, ask: Client) -> None:
        question = {"prompt": STORY, "max_new_tokens": 16, "temperature": 1.5}
        assert len({answer.text for answer in ask.all([question] * 4)}) > 1

    def test_a_repetition_penalty_changes_a_repetitive_answer(self, ask: Client) -> None:
        prompt = "one two one two one two one two"
        plain = ask(prompt, raw_prompt=True, max_new_tokens=16)
        assert ask(prompt, raw_prompt=True, max_new_tokens=16, repetition_penalty=1.8).text != plain.text


REFUSALS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no new tokens": ({"max_new_tokens": 0}, ["max_new_tokens", "0", "1"]),
    "a negative number of tokens": ({"max_new_tokens": -3}, ["max_new_tokens", "-3", "1"]),
    "a negative temperature": ({"temperature": -0.5}, ["temperature", "-0.5", "0"]),
    "a temperature that is no number": ({"temperature": float("nan")}, ["temperature", "nan"]),
    "top_p zero": ({"top_p": 0.0}, ["top_p", "0"]),
    "top_p above one": ({"top_p": 1.5}, ["top_p", "1.5", "1"]),
    "no repetition penalty": ({"repetition_penalty": 0.0}, ["repetition_penalty", "0"]),
    "stop that is no JSON": ({"stop": "\\n"}, ["stop", "JSON array"]),
    "stop with an empty string": ({"stop": json.dumps([""])}, ["stop", "non-empty"]),
    "seventeen stop strings": ({"stop": json.dumps(list("abcdefghijklmnopq"))}, ["stop", "17", "16"]),
    "stop nested deep": ({"stop": "[" * 60_000}, ["stop", "JSON array"]),
    "a prompt that is not UTF-8": ({"prompt": b"\xff\xfe"}, ["text_input", "UTF-8", "0xff"]),
    "an empty raw prompt": ({"prompt": "", "raw_prompt": True}, ["text_input", "empty"]),
    "no prompt at all": ({"prompt": None}, ["text_input: missing; send it, or messages"]),
    "messages and a prompt": ({"messages": [{"role": "user", "content": "x"}]}, ["messages", "excludes text_input"]),
    "an unknown role": ({"prompt": None, "messages": [{"role": "bot", "content": "x"}]}, ["messages[0].role", "bot"]),
    "a schema and a grammar": ({"response_schema": "{}", "grammar": "root ::= a"}, ["response_schema", "grammar"]),
    "two faults at once": ({"top_p": 2.0, "max_new_tokens": 0}, ["top_p", "max_new_tokens"]),
}


@pytest.mark.parametrize("given, named", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_names_input_value_and_limit(ask: Client, given: dict[str, Any], named: list[str]) -> None:
    answer = ask(**{"prompt": "Hello", **given})
    assert answer.pieces == []
    assert all(part in answer.error for part in named), answer.error
    assert ask("Hello", max_new_tokens=2).error == "", "the next request is served"


def test_too_long_a_prompt_is_refused_with_both_lengths(ask: Client) -> None:
    answer = ask("word " * 2000, raw_prompt=True, max_new_tokens=512)
    assert (
        f"prompt has 2001 tokens; with 512 new tokens that is 2513, more than the context of {CONTEXT}" in answer.error
    )


@pytest.mark.parametrize("size", [16 * CONTEXT + 1, 40_000_000], ids=["one byte more", "40 MB"])
def test_a_prompt_beyond_any_tokenizer_is_refused_by_its_bytes(ask: Client, server: Server, size: int) -> None:
    before = server.processor_seconds()
    answer = ask("word " * (size // 5 + 1), max_new_tokens=2)
    most = 16 * CONTEXT
    assert f"more than {most}, which is 16 for each of the {CONTEXT} tokens of the context" in answer.error
    assert server.processor_seconds() - before < 5
    assert ask("Hello", max_new_tokens=2).error == "", "the next request is served"


def test_prompt_and_answer_that_just_fit_are_served_and_one_more_is_not(ask: Client) -> None:
    prompt = "word" + " word" * (CONTEXT - 17)
    assert ask(prompt, raw_prompt=True, max_new_tokens=16).error == ""
    assert f"more than the context of {CONTEXT}" in ask(prompt, raw_prompt=True, max_new_tokens=17).error
