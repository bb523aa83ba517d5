"""`python -m page.picture FILE`: takes the picture of docs/page.md, from the page of a real `r1plus serve` after its gate."""

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, async_playwright

from page.acting import HANDBOOK, PATIENCE_MS, add_document, ask, use_key
from page.conftest import CHROMIUM, list_arguments
from support.edge.owner import owning
from support.edge.served import Served, serving

WIDTH = 960
DEPLOYMENT = "{apiVersion: r1plus.ai/v1alpha1, kind: R1PlusDeployment, metadata: {name: edge}, spec: {tier: edge}}"
"""As `make quickstart` serves it."""
SUITE = Path("smollm2-edge-v1")
"""The name of a shipped suite, all of it."""


async def act(page: Page, served: Served) -> None:
    """Ask three questions, when the calculator runs: the first request starts it."""
    with owning(served) as owner:
        owner.calculate("1 + 1")
    await page.goto(f"{served.status.url}/")
    await use_key(page, served.folder.key.read_text().strip())
    await page.get_by_label("a calculator").check()
    await ask(page, "What is 17 * 23?")
    await page.get_by_label("a calculator").uncheck()
    await add_document(page, "handbook.md", HANDBOOK)
    await ask(page, "In which room is the key of the archive?")
    await page.get_by_label("Answer from").select_option("")
    await page.get_by_label("memory of what I say").check()
    await ask(page, "I prefer short answers. What is the capital of Sweden?")


async def take(served: Served, file: Path) -> None:
    """Take the picture."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list_arguments())
        page = await browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        await act(page, served)
        # Answers scroll; the picture has all of them.
        await page.evaluate("document.getElementById('talk').style.maxHeight = 'none'")
        await page.screenshot(path=file, full_page=True)
        await browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="r1plus-page-") as name, serving(Path(name), SUITE, DEPLOYMENT) as running:
        asyncio.run(take(running, Path(sys.argv[1])))
