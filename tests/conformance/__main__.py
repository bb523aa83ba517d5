"""`make test-long NAME=conformance`: what programs written for OpenAI's API find at a gateway; a JSON line last.

llm-comply, clients such as `openai` and LangChain, and schemathesis, each in an environment of its own. With names of
clients (`python -m conformance langchain`) those alone run. The
gateway is a process with a real store, a real calculator, embedder and reader of documents; behind it the real tritonserver serves a test engine, for
schemathesis a stand-in.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from conformance.clients import CLIENTS, run_client
from conformance.comply import CHAT, RESPONSES, run_comply
from conformance.environments import name_version
from conformance.fuzz import run_fuzz
from conformance.results import Result, Tally
from support.engine.server import CONTEXT
from support.gateway.fake_triton import FakeTriton, answer, stay_silent
from support.gateway.fake_triton import serving as serving_stand_in
from support.gateway.whole import ENGINE, running_gateway, serving_engine

SILENT: Final = "silent"
"""Name of a model that never answers, for clients that give up."""


async def run_before_engine(tally: Tally, clients: Sequence[str]) -> None:
    """Run what needs real answers; without `clients` all of it."""

    async def add(part: str, run: Callable[[], Iterable[Result]]) -> None:
        tally.add(part, await asyncio.to_thread(lambda: list(run())))

    with tempfile.TemporaryDirectory(prefix="r1plus-conformance-") as name:
        folder = Path(name)
        (folder / "gateway").mkdir()
        with serving_engine(folder) as pod:
            async with (
                serving_stand_in(FakeTriton(stay_silent)) as silent,
                running_gateway(folder / "gateway", pod) as gateway,
            ):
                await gateway.add_model(SILENT, silent)
                key = await gateway.create_key()
                for kind in () if clients else (CHAT, RESPONSES):
                    part = f"{name_version('llm-comply')}, {kind}"
                    await add(part, lambda kind=kind: run_comply(kind, gateway.url, key))
                for client in clients or CLIENTS:
                    keys = {
                        "valid": key,
                        "exhausted": await gateway.create_key(limits={"budget_tokens": 1}),
                        "slow": await gateway.create_key(limits={"requests_per_minute": 1}),
                    }
                    await add(
                        name_version(client), lambda client=client, keys=keys: run_client(client, gateway.url, keys)
                    )


async def run_before_stand_in(tally: Tally) -> None:
    """Run what sends thousands of requests: a stand-in for the engine answers them."""
    with tempfile.TemporaryDirectory(prefix="r1plus-conformance-") as name:
        script = answer("Stock", "holm")
        async with serving_stand_in(FakeTriton(script)) as pod, running_gateway(Path(name), pod) as gateway:
            admin = gateway.make_token("team-credit", "r1plus-gateway-admin")
            credentials = {"caller": await gateway.create_key(), "admin": admin}
            results = await asyncio.to_thread(
                lambda: list(run_fuzz(gateway.url, CONTEXT, gateway.settings["embedding"], credentials))
            )
            if gateway.returncode is not None:
                results.append(Result("the gateway runs", problem=gateway.log[-800:]))
            tally.add(name_version("schemathesis"), results)


async def main(clients: Sequence[str]) -> int:
    """Run all parts, or these clients alone; return the exit status."""
    if unknown := set(clients) - CLIENTS.keys():
        print(f"{', '.join(sorted(unknown))}: no such client; there are {', '.join(CLIENTS)}", file=sys.stderr)
        return 2
    tally = Tally()
    print(f"Backend: tritonserver with {ENGINE}", flush=True)
    await run_before_engine(tally, clients)
    if not clients:
        print("Backend: a stand-in for tritonserver", flush=True)
        await run_before_stand_in(tally)
    print(tally.encode(backend=f"tritonserver with {ENGINE}; a stand-in for schemathesis"))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
