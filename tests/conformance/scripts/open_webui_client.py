"""What Open WebUI, a chat front end, finds at a gateway: it runs, and a person's browser is played by HTTP."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from cases import KEYS, URL, case, run_cases

START_SECONDS = 600
QUESTION: Any = [{"role": "user", "content": "What is the capital of Sweden?"}]
folder = tempfile.TemporaryDirectory(prefix="open-webui-")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
FRONT = f"http://127.0.0.1:{PORT}"
KEY = KEYS["valid"]
# region settings
SETTINGS = {
    "OPENAI_API_BASE_URL": URL,
    "OPENAI_API_KEY": KEY,
    "ENABLE_OLLAMA_API": "false",
}
# endregion
OWN = {
    "RAG_EMBEDDING_ENGINE": "openai",  # else it loads a model, by torch
    "DATA_DIR": folder.name,
    "WEBUI_SECRET_KEY": "for this run",
    "WEBUI_AUTH": "False",
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ANONYMIZED_TELEMETRY": "false",
    "SCARF_NO_ANALYTICS": "true",
}
person = requests.Session()


def ask(**fields: Any) -> requests.Response:
    """Send a chat as the front end's page does."""
    body = {"model": "credit", "messages": QUESTION, "max_tokens": 32, **fields}
    return person.post(f"{FRONT}/api/chat/completions", json=body, timeout=300, stream=bool(fields.get("stream")))


def read_stream(answer: requests.Response) -> Iterator[Any]:
    """Return the events of a stream."""
    for line in answer.iter_lines():
        data = line.removeprefix(b"data: ")
        if data.startswith(b"{"):
            yield json.loads(data)


@case
def its_models_are_those_of_the_gateway() -> None:
    ids = [model["id"] for model in person.get(f"{FRONT}/api/models", timeout=60).json()["data"]]
    assert "credit" in ids and "credit:code" in ids


@case
def a_whole_answer() -> None:
    answer = ask().json()
    assert answer["choices"][0]["message"]["content"]


@case
def a_stream() -> None:
    text = "".join(
        choice["delta"].get("content") or "" for event in read_stream(ask(stream=True)) for choice in event["choices"]
    )
    assert text


@case
def the_sliders_of_its_page() -> None:
    """What its parameters are by default, and those that other servers have."""
    sliders = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "seed": 7, "max_tokens": 16_384}
    answer = ask(**sliders, frequency_penalty=0, presence_penalty=0, logit_bias={}, stop=["."], stream=True)
    assert [event for event in read_stream(answer) if event["choices"]]


@case
def tools_of_the_caller() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {**parameters, "required": ["city"]}}}
    answer = ask(tools=[tool], tool_choice="required", max_tokens=96).json()
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"


@case
def a_refusal_is_shown_with_its_remedy() -> None:
    answer = ask(n=2)
    assert answer.status_code == 400 and "send a request for each" in answer.text


def main() -> None:
    """Start the front end, run the cases, and stop it."""
    environ = {**os.environ, **SETTINGS, **OWN}
    program = Path(sys.executable).with_name("open-webui")
    with (
        folder,
        (Path(folder.name) / "log").open("w") as log,
        subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", str(PORT)], env=environ, stdout=log, stderr=log
        ) as front,
    ):
        try:
            wait_for(front)
            signed_in = person.post(f"{FRONT}/api/v1/auths/signin", json={"email": "", "password": ""}, timeout=60)
            person.headers["Authorization"] = f"Bearer {signed_in.json()['token']}"
            run_cases()
        finally:
            front.terminate()


def wait_for(front: "subprocess.Popen[bytes]") -> None:
    """Wait until it answers."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and front.poll() is None:
        try:
            person.get(f"{FRONT}/health", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(1)
    raise SystemExit(f"Open WebUI has not started: {(Path(folder.name) / 'log').read_text()[-800:]}")


if __name__ == "__main__":
    main()
