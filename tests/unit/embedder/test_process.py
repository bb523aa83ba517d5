"""`python -m r1plus_embedder`: start, health, and what it says when it cannot start."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_assistant.embedding.client import SocketEmbedder
from r1plus_contract.embedder import ENV_ENGINE, ENV_ENGINE_DIR, ENV_IDLE_SECONDS, ENV_SHA256, ENV_SOCKET, ENV_THREADS
from support.embedding.tiny_model import make_tiny_engine
from support.tables import for_each
from support.waiting import eventually

WAIT = 240


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_engine(tmp_path_factory.mktemp("engine"))


def build_environment(folder: Path, engine: Path) -> dict[str, str]:
    return {**os.environ, ENV_SOCKET: str(folder / "s"), ENV_ENGINE: "tiny", ENV_ENGINE_DIR: str(engine)}


def check_health(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r1plus_embedder", "health"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT)


@pytest.mark.unit_slow
async def test_it_serves_until_it_is_told_to_end_and_is_healthy_before_its_engine_is_loaded(
    tmp_path: Path, engine: Path
) -> None:
    environment = build_environment(tmp_path, engine)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "r1plus_embedder", env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        await eventually((tmp_path / "s").exists, "it listens")
        health = check_health(environment)
        assert (health.returncode, health.stdout) == (0, "")
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
        embeddings = await SocketEmbedder(str(tmp_path / "s"), WAIT).embed(["the contract of Schmidt"])
        assert embeddings.engine.startswith("tiny@sha256:")
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not (tmp_path / "s").exists()
    assert b"Schmidt" not in log
    gone = check_health(environment)
    assert gone.returncode == 1
    assert "does not answer" in gone.stdout


@for_each(
    "changes, words",
    {
        "no name": ({ENV_ENGINE: ""}, f"{ENV_ENGINE}: not set"),
        "no files": ({ENV_ENGINE_DIR: "/nowhere"}, "mount the engine's files there"),
        "other files": ({ENV_SHA256: "0" * 64}, "deliver the engine's files again"),
        "no threads": ({ENV_THREADS: "0"}, f"{ENV_THREADS}: '0' is not a whole number from 1 to 64"),
        "threads in words": ({ENV_THREADS: "two"}, "correct it, or leave it out"),
        "no idle time": ({ENV_IDLE_SECONDS: "-1"}, ENV_IDLE_SECONDS),
        "a socket nowhere": ({ENV_SOCKET: "/nowhere/s"}, "mount a volume there"),
    },
)
def test_without_what_it_needs_it_ends_and_says_why(
    tmp_path: Path, engine: Path, changes: dict[str, str], words: str
) -> None:
    environment = build_environment(tmp_path, engine) | changes
    command = [sys.executable, "-m", "r1plus_embedder"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT)
    assert result.returncode == 2
    assert words in result.stderr
