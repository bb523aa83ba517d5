"""The page of `r1plus serve`, in a real browser: the address that it prints, and the figures of the gate that ran here."""

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, expect

from page.acting import PATIENCE_MS, ask, question, use_key
from support.edge.served import Served, serving
from support.edge.suites import write_part

pytestmark = [pytest.mark.page, pytest.mark.timeout(3000), pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """It serves, after its gate."""
    suites = tmp_path_factory.mktemp("suites")
    with serving(tmp_path_factory.mktemp("serve"), write_part(suites / "part-v1")) as running:
        yield running


async def test_the_printed_page_asks_what_serves_and_shows_what_its_gate_measured(
    served: Served, browser: Browser
) -> None:
    printed = re.search(r"page +(\S+)", served.output)
    assert printed is not None
    async with await browser.new_context() as context:
        page = await context.new_page()
        await page.goto(printed[1])
        await use_key(page, served.folder.key.read_text().strip())
        await expect(question(page)).to_be_focused(timeout=PATIENCE_MS)
        # This machine keeps neither documents nor conversations.
        await expect(page.get_by_role("heading", name="Documents")).to_have_count(0)
        article = await ask(page, "What is the capital of Sweden?")
        await expect(article.locator(".text")).to_contain_text("Stockholm")
        facts = await article.locator(".facts").inner_text()
    right, items = served.status.accuracy.split("/")
    assert f"{right} of {items} of part-v1" in facts
    assert served.status.revision in facts
