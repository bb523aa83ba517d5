"""`make test-long NAME=page`: what a person can do on the gateway's page, in a real browser, before a real model."""

import json
import re
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, Route, expect

from page.acting import HANDBOOK, PATIENCE_MS, add_document, ask, enter, question, use_key
from support.gateway.example_programs import PRINTING
from support.gateway.process import GatewayProcess
from support.tables import for_each

pytestmark = [pytest.mark.page, pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="session")]

Json = dict[str, Any]
WRONG_KEY = "r1p_AAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


async def find_violations(page: Page) -> list[str]:
    """What axe finds."""
    found = await Axe().run(page)
    return [f"{one['id']}: {node['html']}" for one in found.response["violations"] for node in one["nodes"]]


async def test_a_question_is_asked_by_keyboard_alone_and_the_answer_says_what_answered(
    page: Page, gateway: GatewayProcess
) -> None:
    key = await gateway.create_key()
    for name in ("Skip to the question", "API", "API key"):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert (await focused.inner_text() or await focused.get_attribute("id")) in (name, "key")
    await page.keyboard.type(key)
    await page.keyboard.press("Enter")
    await expect(question(page)).to_be_focused(timeout=PATIENCE_MS)
    await page.keyboard.type("What is the capital of Sweden?")
    await page.keyboard.press("Control+Enter")
    facts = page.locator("article .facts")
    await expect(facts).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.locator("article .text")).to_contain_text("Stockholm")
    shown = await facts.inner_text()
    for fact in (
        "Pass",
        "207 of 210 of credit-v1 (98.6 %; 4 may be lost)",
        "credit-1",
        "sha256:",
        "First token",
        "tokens/s",
    ):
        assert fact in shown
    await expect(question(page)).to_be_focused()


async def test_a_calculation_is_shown_as_verified(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    await page.get_by_label("a calculator").check()
    article = await ask(page, "What is 17 * 23?")
    await expect(article.get_by_role("list", name="Calculations")).to_have_text("17*23 = 391 (verified)")


async def ask_with_a_program(page: Page, text: str) -> Locator:
    """Ask, and let the model write a program first: so small a one writes none by itself."""

    async def force(route: Route) -> None:
        body = json.loads(str(route.request.post_data))
        forced = {"tool_choice": {"type": "code_interpreter"}, "max_tool_calls": 1, "max_output_tokens": 400}
        await route.continue_(post_data=json.dumps(body | forced | {"input": [*PRINTING, *body["input"]]}))

    await page.get_by_label("programs that it writes").check()
    await page.route("**/v1/responses", force)
    article = await ask(page, text)
    await page.unroute("**/v1/responses")
    return article


async def test_a_program_is_shown_with_its_output_and_read_again(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    await page.get_by_label("a calculator").check()
    async with page.expect_response("**/v1/responses") as answered:
        article = await ask_with_a_program(page, "Print 6 * 7.")
    await expect(page.get_by_label("a calculator")).not_to_be_checked()
    events = [line[6:] for line in (await (await answered.value).text()).splitlines() if line.startswith("data: {")]
    *programs, message = json.loads(events[-1])["response"]["output"]
    assert programs
    await expect(article.locator(".text")).to_have_text(message["content"][0]["text"] or "(no text)")
    for number, program in enumerate(programs, 1):
        for name, text in (
            ("Program", program["code"] or "(empty)"),
            ("Output", program["outputs"][0]["logs"] or "(none)"),
        ):
            shown = article.get_by_role("region", name=f"{name} {number}", exact=True)
            await expect(shown).to_have_text(text, use_inner_text=True)
    assert "tokens/s" not in await article.locator(".facts").inner_text(), "its text came as one piece"
    async with page.expect_request("**/v1/responses") as sent:
        await ask(page, "What has it printed?")
    said = json.loads(str((await sent.value).post_data))["input"]
    assert said[1 : 1 + len(programs)] == programs


async def test_a_document_is_added_cited_and_deleted(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    entry = await add_document(page, "handbook.md", HANDBOOK)
    await expect(entry).to_contain_text("1 passage")
    await expect(page.get_by_label("Answer from")).not_to_have_value("")
    article = await ask(page, "In which room is the key of the archive?")
    await expect(article.locator(".text")).to_contain_text("214")
    await expect(article.get_by_role("list", name="Citations")).to_have_text("handbook.md, Archive > Keys")
    await page.get_by_role("button", name="Delete: handbook.md").click()
    await expect(entry).to_have_count(0)
    await page.reload()
    await expect(question(page)).to_be_focused(timeout=PATIENCE_MS)
    await expect(entry).to_have_count(0)


async def test_an_upload_shows_how_far_it_is(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    session = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    await session.send("Network.emulateNetworkConditions", slow)
    await page.evaluate(
        """() => {
            const bar = document.getElementById("upload-bar");
            window.shown = [];
            new MutationObserver(() => window.shown.push(bar.checkVisibility() && bar.value)).observe(bar, { attributes: true });
        }"""
    )
    # Spaces are no passages, so that it is sent for seconds and read in no time.
    entry = await add_document(page, "long.md", HANDBOOK + b" " * 400_000)
    shown = await page.evaluate("shown")
    assert [part for part in shown if 0 < part < 1], f"the bar moves while the file is sent: {shown}"
    await expect(page.get_by_role("progressbar", name="Progress of the upload")).to_be_hidden()
    await page.get_by_role("button", name="Delete: long.md").click()
    await expect(entry).to_have_count(0)


async def test_a_preset_is_chosen_beside_its_accuracy(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    preset = page.get_by_label("Preset")
    names = await preset.get_by_role("option").all_inner_texts()
    assert names[0] == "none (accuracy gated)"
    assert all(re.fullmatch(r"[a-z]+ \(accuracy (un)?measured\)", name) for name in names[1:]), names
    await preset.select_option("code")
    async with page.expect_request("**/v1/responses") as sent:
        await ask(page, "What is the capital of Sweden?")
    assert json.loads(str((await sent.value).post_data))["model"] == "credit:code"


async def test_what_i_said_is_remembered_shown_and_deleted(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    await page.get_by_label("memory of what I say").check()
    await ask(page, "I am allergic to nuts. What is the capital of Sweden?")
    entry = page.get_by_role("list", name="Remembered sentences").get_by_role("listitem")
    await expect(entry).to_contain_text("I am allergic to nuts.", timeout=PATIENCE_MS)
    await page.get_by_role("button", name="Delete: I am allergic to nuts.").click()
    await expect(entry).to_have_count(0)


KEYS = {
    "a key that does not exist": WRONG_KEY,
    "something else": "not a key",
    "what no header can carry": "sch\u00fcssel \u2603",
}


@for_each("key", KEYS)
async def test_a_wrong_key_opens_nothing_and_is_forgotten(page: Page, key: str) -> None:
    await use_key(page, key)
    await expect(page.get_by_role("alert")).to_contain_text("is not valid here", timeout=PATIENCE_MS)
    await expect(page.get_by_role("heading", name="Ask")).to_have_count(0)
    assert await page.evaluate("sessionStorage.length") == 0


async def test_a_key_that_is_revoked_ends_the_page(page: Page, gateway: GatewayProcess) -> None:
    key = await enter(page, gateway)
    status, _ = await gateway.call_admin("DELETE", f"/keys/{key.split('_')[1]}")
    assert status == 200
    await question(page).fill("Hi")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("key", timeout=PATIENCE_MS)
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("is not valid here", timeout=PATIENCE_MS)
    await expect(page.get_by_label("API key")).to_be_visible()


async def test_the_key_stays_in_its_tab(page: Page, gateway: GatewayProcess) -> None:
    key = await enter(page, gateway)
    other = await page.context.new_page()
    await other.goto(f"{gateway.url}/")
    await expect(other.get_by_label("API key")).to_be_visible()
    assert key not in json.dumps(await page.context.storage_state())
    assert key not in page.url + await page.content()
    await page.get_by_role("button", name="Forget the key").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0


HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'


async def test_text_that_is_markup_stays_text(page: Page, gateway: GatewayProcess) -> None:
    title = await page.title()
    await enter(page, gateway)
    article = await ask(page, HOSTILE)
    await expect(article.locator(".said")).to_have_text(HOSTILE)
    entry = await add_document(page, f"{HOSTILE.replace('/', '')}.md", HANDBOOK)
    await expect(entry).to_contain_text("<img src=x")
    assert await page.locator("img").count() == 0
    assert await page.title() == title


async def ask_and_get(page: Page, *events: Json) -> None:
    """Ask; a stream with these events is what the gateway answers."""
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    await page.route("**/v1/responses", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    await question(page).fill("What is the capital of Sweden?")
    await page.get_by_role("button", name="Ask", exact=True).click()


BEGUN = {"type": "response.code_interpreter_call_code.done", "code": HOSTILE}
PROGRAM = {"type": "code_interpreter_call", "code": HOSTILE, "outputs": [{"type": "logs", "logs": HOSTILE}]}
RUN = {"type": "response.output_item.done", "item": PROGRAM}
FAILED = {"type": "error", "code": "context_length_exceeded", "message": "the programs fill the context; ask for less."}
BROKEN_PROGRAMS = {
    "after it has run": ((BEGUN, RUN, FAILED), HOSTILE),
    "while it runs": ((BEGUN, FAILED), "(unknown)"),
}


@for_each("events, output", BROKEN_PROGRAMS)
async def test_programs_of_an_answer_that_breaks_off_are_kept_as_text(
    page: Page, gateway: GatewayProcess, events: tuple[Json, ...], output: str
) -> None:
    title = await page.title()
    await enter(page, gateway)

    await ask_and_get(page, *events)
    await expect(page.get_by_role("alert")).to_contain_text("ask for less. Or begin a new conversation.")
    await expect(page.get_by_role("region", name="Program 1", exact=True)).to_have_text(HOSTILE)
    await expect(page.get_by_role("region", name="Output 1", exact=True)).to_have_text(output)
    await expect(page.locator("article")).to_contain_text("Broken off.")
    assert await page.locator("img").count() == 0
    assert await page.title() == title


async def test_another_key_may_not_what_was_chosen_before(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    await page.get_by_label("programs that it writes").check()
    await page.get_by_role("button", name="Forget the key").click()

    async def take_away(route: Route) -> None:
        answer = await route.fetch()
        about = await answer.json()
        await route.fulfill(response=answer, json=about | {"features": ["documents"]})

    await page.route("**/v1/key", take_away)
    await enter(page, gateway)
    await expect(page.get_by_role("group", name="With")).to_be_hidden()
    async with page.expect_request("**/v1/responses") as sent:
        await ask(page, "Hi")
    assert "tools" not in json.loads(str((await sent.value).post_data))


INJECTED = {
    "a script of the page's own": "const s = document.createElement('script'); s.text = 'ran = 1'; document.body.append(s)",
    "a string as code": "eval('ran = 1')",
    "markup with a handler": "document.body.innerHTML = '<img src=x onerror=\"ran = 1\">'",
    "a script from elsewhere": "const s = document.createElement('script'); s.src = 'data:,ran = 1'; document.body.append(s)",
}


@for_each("code", INJECTED)
async def test_the_browser_runs_no_other_code(page: Page, code: str) -> None:
    # In a task of the page's own: the driver's code is exempt from the policy.
    refused = await page.evaluate(
        f"""() => new Promise((done) => {{
            addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            setTimeout(() => {{ try {{ {code} }} catch {{ }} }});
            setTimeout(() => done("nothing"), {PATIENCE_MS});
        }})"""
    )
    assert refused in ("script-src", "script-src-elem", "require-trusted-types-for"), refused
    assert await page.evaluate("typeof ran") == "undefined"


async def test_no_other_host_is_asked(browser: Browser, gateway: GatewayProcess) -> None:
    async with await browser.new_context() as context:
        page, hosts = await context.new_page(), set[str]()
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        await page.goto(f"{gateway.url}/")
        await enter(page, gateway)
        await ask(page, "Hi")
        assert hosts == {gateway.url.removeprefix("http://")}


SCHEMES = {"light": "light", "dark": "dark"}


@for_each("scheme", SCHEMES)
async def test_it_is_usable_for_all_and_on_a_small_screen(page: Page, gateway: GatewayProcess, scheme: Any) -> None:
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": 320, "height": 640})
    assert await find_violations(page) == []
    await enter(page, gateway)
    await page.get_by_label("a calculator").check()
    await ask(page, "What is 17 * 23?")
    await ask_with_a_program(page, "Print 6 * 7.")
    assert await find_violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320


FAULTS = {
    "a gateway that is gone": (None, "cannot be reached"),
    "a budget that is used up": (
        (429, {"error": {"message": "the budget of this month is used up", "type": "x", "param": None, "code": "y"}}),
        "budget of this month",
    ),
    "a proxy's error page": ((502, "<h1>Bad gateway</h1>"), "answered 502"),
}


@for_each("answer, says", FAULTS)
async def test_a_fault_is_told_and_the_question_is_kept(
    page: Page, gateway: GatewayProcess, answer: tuple[int, Any] | None, says: str
) -> None:
    await enter(page, gateway)

    async def fail(route: Route) -> None:
        if answer is None:
            await route.abort("connectionrefused")
        else:
            status, body = answer
            await route.fulfill(status=status, body=body if isinstance(body, str) else json.dumps(body))

    await page.route("**/v1/responses", fail)
    await question(page).fill("What is the capital of Sweden?")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text(says, timeout=PATIENCE_MS)
    await expect(question(page)).to_have_value("What is the capital of Sweden?")
    await page.unroute("**/v1/responses")
    await ask(page, "What is the capital of Sweden?")
    await expect(page.get_by_role("alert")).to_have_count(0)


BROKEN = {
    "an error within the stream": {"type": "error", "message": "the pod failed; try again"},
    "an answer that failed": {
        "type": "response.failed",
        "response": {"error": {"message": "the pod failed; try again"}},
    },
}


@for_each("event", BROKEN)
async def test_an_answer_that_breaks_off_is_told(page: Page, gateway: GatewayProcess, event: Json) -> None:
    await enter(page, gateway)

    await ask_and_get(page, event)
    await expect(page.get_by_role("alert")).to_contain_text("the pod failed; try again", timeout=PATIENCE_MS)
    await expect(page.locator("article")).to_have_count(0)


async def test_a_new_conversation_is_not_the_one_that_was_about_to_begin(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    await page.get_by_label("memory of what I say").check()
    begun: list[Route] = []

    async def hold(route: Route) -> None:
        begun.append(route)

    await page.route("**/v1/conversations", hold)
    await question(page).fill("Hi")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await page.get_by_role("button", name="New conversation").click()
    await begun[0].fulfill(json={"id": "conv_of_before"})
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled(timeout=PATIENCE_MS)
    await page.unroute("**/v1/conversations")
    async with page.expect_request("**/v1/responses") as sent:
        await ask(page, "Hi")
    assert "conv_of_before" not in str((await sent.value).post_data)


async def test_an_answer_is_stopped_and_the_engine_with_it(page: Page, gateway: GatewayProcess) -> None:
    await enter(page, gateway)
    await question(page).fill("Write a long story about a ship, an island and a storm.")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(page.locator("article .text")).not_to_have_text("…", timeout=PATIENCE_MS)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("article")).to_contain_text("Stopped.")
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()
