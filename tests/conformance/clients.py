"""Clients for OpenAI's API, each in its own environment, with a script of cases: `scripts/`."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from conformance.environments import prepare
from conformance.results import Result

SCRIPTS: Final = Path(__file__).with_name("scripts")
CLIENTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("openai-3", "openai-2", "openai-1"), "openai_client.py"),
    "langchain": "langchain_client.py",
    "llama-index": "llama_index_client.py",
    "litellm": "litellm_client.py",
    "ai-sdk": "ai_sdk/client.mjs",
    "open-webui": "open_webui_client.py",
}
"""Environment -> script."""
TIMEOUT_SECONDS: Final = 1800


def run_client(name: str, url: str, keys: dict[str, str]) -> Iterator[Result]:
    """Run the script with one client. It prints a line of JSON for each case."""
    programs = prepare(name)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(programs.parent),
        "GATEWAY": url,
        "KEYS": json.dumps(keys),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it looks for prices in the internet
    }
    script = SCRIPTS / CLIENTS[name]
    if script.suffix == ".mjs":  # read from standard input, it finds the packages of the folder that it runs in
        command = [programs / "node", "--input-type=module", "-"]
    else:
        warnings = ["-W", "error"] if name.startswith("openai-") else []
        command = [programs / "python", "-sE", *warnings, script]
    done = subprocess.run(
        command,
        cwd=programs.parent,
        env=environ,
        input=script.read_text(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in lines:
        yield Result(line["case"], problem=line["problem"])
    if done.returncode or not lines:
        yield Result("the script ends", problem=f"status {done.returncode}: {done.stderr[-800:]}")
