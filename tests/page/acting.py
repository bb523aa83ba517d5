"""What a person does on the page."""

from typing import Any

from playwright.async_api import FilePayload, Locator, Page, expect

from support.gateway.process import GatewayProcess

PATIENCE_MS = 120_000.0
"""For what an engine answers; a quiet machine needs a tenth."""
HANDBOOK = b"# Archive\n\n## Keys\n\nThe key of the archive hangs in room 214, beside the window.\n"


async def use_key(page: Page, key: str) -> None:
    """Enter a key."""
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Use this key").click()


async def enter(page: Page, gateway: GatewayProcess, **spec: Any) -> str:
    """Enter a new key, and wait for what it opens; return it."""
    key = await gateway.create_key(**spec)
    await use_key(page, key)
    await expect(question(page)).to_be_focused(timeout=PATIENCE_MS)
    return key


def question(page: Page) -> Locator:
    """The field of the question."""
    return page.get_by_role("textbox", name="Question")


async def ask(page: Page, text: str) -> Locator:
    """Ask; return the whole answer."""
    count = await page.locator("article").count()
    await question(page).fill(text)
    await page.get_by_role("button", name="Ask", exact=True).click()
    article = page.locator("article").nth(count)
    await expect(article.locator(".facts")).to_be_visible(timeout=PATIENCE_MS)
    return article


async def add_document(page: Page, name: str, content: bytes) -> Locator:
    """Upload a document, and wait until it was read; return its entry."""
    count = await page.locator("#documents li").count()
    file = FilePayload(name=name, mimeType="text/markdown", buffer=content)
    await page.get_by_label("Text, Markdown, HTML, PDF or DOCX").set_input_files(files=[file])
    await page.get_by_role("button", name="Add").click()
    entry = page.get_by_role("list", name="Documents").get_by_role("listitem").nth(count)
    await expect(entry).to_contain_text("passage", timeout=PATIENCE_MS)
    return entry
