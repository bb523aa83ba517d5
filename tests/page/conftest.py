"""A gateway with all its helpers before the real tritonserver, and a real Chromium that opens its page."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from devcluster import packages
from devcluster.steps import Steps
from page.acting import PATIENCE_MS
from support.gateway.process import GatewayProcess
from support.gateway.whole import running_gateway, serving_engine

CHROMIUM = Path("/usr/bin/chromium")


def list_arguments() -> list[str]:
    """Return Chromium's arguments: its own sandbox needs another user than root."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """It stores conversations and documents, and has a calculator and an embedder."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "gateway").mkdir()
    with serving_engine(folder) as pod:
        async with running_gateway(folder / "gateway", pod) as gateway:
            yield gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, without a window."""
    packages.install(Steps(1), packages.CHROMIUM)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list_arguments())
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, gateway: GatewayProcess) -> AsyncIterator[Page]:
    """The gateway's page in a tab of its own; its scripts fail nowhere."""
    context = await browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    await page.goto(f"{gateway.url}/")
    yield page
    await context.close()
    assert failures == []
