"""`python -m page.picture FILE`: takes the picture of docs/page.md, from the real page before a real model."""

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from page.acting import HANDBOOK, PATIENCE_MS, add_document, ask, enter
from page.conftest import CHROMIUM, list_arguments
from support.gateway.whole import running_gateway, serving_engine

WIDTH = 960


async def take(file: Path) -> None:
    """Ask three questions, and take the picture."""
    with tempfile.TemporaryDirectory(prefix="r1plus-page-") as name:
        folder = Path(name)
        (folder / "gateway").mkdir()
        with serving_engine(folder) as pod:
            async with running_gateway(folder / "gateway", pod) as gateway, async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list_arguments())
                page = await browser.new_page(viewport={"width": WIDTH, "height": 900})
                page.set_default_timeout(PATIENCE_MS)
                await page.goto(f"{gateway.url}/")
                await enter(page, gateway)
                await page.get_by_label("a calculator").check()
                await ask(page, "What is 17 * 23?")
                await page.get_by_label("a calculator").uncheck()
                await add_document(page, "handbook.md", HANDBOOK)
                await ask(page, "In which room is the key of the archive?")
                await page.get_by_label("Answer from").select_option("")
                await page.get_by_label("memory of what I say").check()
                await ask(page, "I prefer short answers. What is the capital of Sweden?")
                await page.screenshot(path=file, full_page=True)
                await browser.close()


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
