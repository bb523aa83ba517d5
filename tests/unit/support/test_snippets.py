"""Snippets of docs/clients.md are code of the scripts that `make test-long NAME=conformance` runs."""

import pytest

from conformance.clients import CLIENTS, SCRIPTS
from conformance.environments import name_version
from conformance.snippets import SnippetError, show


def test_a_snippet_has_the_imports_that_it_needs_and_none_of_the_harness() -> None:
    shown = show("langchain", "chat", "stream").splitlines()
    assert shown[:2] == ["```python", "from langchain_openai import ChatOpenAI"]
    assert not [line for line in shown if "cases" in line or "region" in line]
    assert show("ai-sdk", "chat").splitlines()[1] == (
        'import { createOpenAICompatible } from "@ai-sdk/openai-compatible";'
    )


def test_a_region_that_no_script_has_is_an_error() -> None:
    with pytest.raises(SnippetError, match=r"langchain_client\.py has no region nothing: chat, weather"):
        show("langchain", "nothing")


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_has_a_script_and_a_version(client: str) -> None:
    assert (SCRIPTS / CLIENTS[client]).is_file()
    assert name_version(client).split()[1][0].isdigit()
