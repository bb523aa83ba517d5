"""The page of `r1plus serve`, in a real browser: what its gate measured, and documents and calculator without a flag."""

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, expect

from page.acting import HANDBOOK, PATIENCE_MS, add_document, ask, question, use_key
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
        article = await ask(page, "What is the capital of Sweden?")
        await expect(article.locator(".text")).to_contain_text("Stockholm")
        facts = await article.locator(".facts").inner_text()
        # Nobody has switched anything on.
        await expect(page.get_by_label("programs that it writes")).to_be_hidden()
        entry = await add_document(page, "handbook.md", HANDBOOK)
        await expect(entry).to_contain_text("1 passage")
        article = await ask(page, "In which room is the key of the archive?")
        await expect(article.locator(".text")).to_contain_text("214")
        await expect(article.get_by_role("list", name="Citations")).to_have_text("handbook.md, Archive > Keys")
        await page.get_by_label("Answer from").select_option("")
        await page.get_by_label("a calculator").check()
        article = await ask(page, "What is 17 * 23?")
        await expect(article.get_by_role("list", name="Calculations")).to_have_text("17*23 = 391 (verified)")
    right, items = served.status.accuracy.split("/")
    assert f"{right} of {items} of part-v1" in facts
    assert served.status.revision in facts
