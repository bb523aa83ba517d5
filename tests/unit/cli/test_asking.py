"""`r1plus ask` before and after the model: what is not asked at all, and what is printed when it breaks."""

import pytest

from r1plus_cli.deployment.ask import ask_deployment, end_last_line
from r1plus_cli.deployment.stream import Question
from r1plus_cli.errors import CliError
from support.cli.deployments import Json, condition, cr


class Cluster:
    """Holds one deployment; nobody gets as far as a forwarded port."""

    def __init__(self, body: Json) -> None:
        self.body = body

    def get_deployment(self, namespace: str, name: str) -> Json:
        return self.body


def test_what_no_revision_serves_is_not_asked_and_its_own_words_say_why() -> None:
    body = cr(condition("Ready", "False", "SuiteNotFound", "there is no suite nonesuch"))
    with pytest.raises(CliError) as refusal:
        ask_deployment(Cluster(body), "team-credit", "credit", Question("?"), 1.0, print)  # type: ignore[arg-type]
    said = str(refusal.value)
    assert said.startswith("team-credit/credit: no revision takes traffic yet: ")
    assert "SuiteNotFound: there is no suite nonesuch" in said
    assert said.endswith("see: r1plus status credit -n team-credit")


def test_an_answer_that_breaks_ends_its_line_and_one_that_never_began_prints_nothing() -> None:
    printed: list[str] = []
    with pytest.raises(CliError), end_last_line(printed.append) as write:
        write("Stock")
        raise CliError("gone")
    assert printed == ["Stock", "\n"]
    printed.clear()
    with pytest.raises(CliError), end_last_line(printed.append):
        raise CliError("gone")
    assert printed == []
