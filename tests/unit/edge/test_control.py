"""The socket of `serve update`: a request, its progress, its result; and who is refused."""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1plus_contract.jsonable import dumps
from r1plus_edge.control import ControlMessage, MessageKind, OwnerVerb, ask, ask_for_update, listen_for_requests
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.places import short_path
from r1plus_edge.report import Narrator, ServeStatus, StartStep
from r1plus_edge.update.request import UpdateRequest, UpdateResult
from support.waiting import eventually


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, step: StartStep) -> None:
        self.lines.append(f"{step.name}: {step.detail}")

    def progress(self, name: str, percent: int, detail: str) -> None:
        self.lines.append(f"{name} {percent} %")

    def note(self, text: str) -> None:
        self.lines.append(text)

    def serving(self, status: ServeStatus) -> None:
        raise AssertionError("an update announces nothing")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    # Longer than the path of a socket may be.
    root = tmp_path / ("deep" * 30)
    root.mkdir()
    return DataFolder(root)


async def carry_out(request: UpdateRequest, narrator: Narrator) -> UpdateResult:
    narrator.step(StartStep("engine", request.engine, 1.0))
    narrator.progress("gate", 50, "half")
    return UpdateResult(request.engine == "good", f"{request.engine} was tried")


@pytest.mark.parametrize("engine", ["good", "bad"])
async def test_whoever_asks_sees_each_step_and_what_came_of_it(folder: DataFolder, engine: str) -> None:
    listener = Listener()
    async with listen_for_requests(folder, carry_out, {}):
        assert folder.control.stat().st_mode & 0o777 == 0o600
        result = await asyncio.to_thread(ask_for_update, folder, UpdateRequest(engine=engine), listener)
    assert listener.lines == [f"engine: {engine}", "gate 50 %"]
    assert result == UpdateResult(engine == "good", f"{engine} was tried")
    assert not folder.control.exists()


def test_a_release_before_this_one_gets_only_what_is_asked_for(folder: DataFolder) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads:
        with short_path(folder.control) as path:
            listener.bind(path)
        listener.listen()
        update = threads.submit(ask_for_update, folder, UpdateRequest(engine="q8"), Listener())
        connection, _ = listener.accept()
        with connection, connection.makefile() as lines:
            assert json.loads(lines.readline()) == {"engine": "q8"}
        with pytest.raises(EdgeError, match="has ended before the update was decided"):
            update.result()


async def test_an_update_goes_on_when_its_asker_leaves(folder: DataFolder) -> None:
    began, may_end, has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(request: UpdateRequest, narrator: Narrator) -> UpdateResult:
        began.set()
        await may_end.wait()
        for _ in range(1000):
            narrator.note("a line that nobody reads" * 100)
        has_ended.set()
        return UpdateResult(True, "")

    async with listen_for_requests(folder, wait, {}):
        with connected(folder) as connection:
            connection.sendall(b'{"engine": "good"}\n')
            await began.wait()
        may_end.set()
        await eventually(has_ended.is_set, "the update has ended")


@contextmanager
def connected(folder: DataFolder) -> Iterator[socket.socket]:
    """Connect as another process does, through a path that is short enough."""
    with short_path(folder.control) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        yield connection


@pytest.mark.unit_slow
@pytest.mark.parametrize(
    "line",
    [b"\n", b"[]\n", b'{"engine": 1}\n', b"\xff\n", b"x" * 200_000],
    ids=["empty", "a list", "a number", "no text", "endless"],
)
async def test_a_request_that_is_none_is_refused(folder: DataFolder, line: bytes) -> None:
    async with listen_for_requests(folder, carry_out, {}):
        answer = await asyncio.to_thread(send, folder, line)
        assert b'"Refused"' in answer
        result = await asyncio.to_thread(ask_for_update, folder, UpdateRequest(engine="good"), Listener())
        assert result.is_in_force


async def test_an_error_of_our_own_is_an_answer(folder: DataFolder) -> None:
    async def break_off(request: UpdateRequest, narrator: Narrator) -> UpdateResult:
        raise ValueError("embedded null byte")

    async with listen_for_requests(folder, break_off, {}), asyncio.timeout(20):
        result = await asyncio.to_thread(ask_for_update, folder, UpdateRequest(engine="good"), Listener())
    assert not result.is_in_force
    assert "ValueError: embedded null byte" in result.text


def send(folder: DataFolder, line: bytes) -> bytes:
    with connected(folder) as connection:
        connection.sendall(line)
        return connection.makefile("rb").readline()


def test_where_nothing_serves_that_is_said(folder: DataFolder) -> None:
    with pytest.raises(EdgeError, match=r"nothing serves there now \(No such file or directory\), so nothing was upd"):
        ask_for_update(folder, UpdateRequest(engine="good"), Listener())


def test_the_socket_of_a_killed_serve_is_no_serve(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder.control))
    with pytest.raises(EdgeError, match=r"nothing serves there now \(Connection refused\)"):
        ask_for_update(folder, UpdateRequest(engine="good"), Listener())


async def answer_at_once() -> str:
    return "The gateway goes by 2026-11-29T07:00:00Z"


async def refuse() -> str:
    raise EdgeError("The gateway does not answer")


async def break_down() -> str:
    raise ValueError("embedded null byte")


async def test_the_owner_asks_for_other_things_while_an_update_goes_on(folder: DataFolder) -> None:
    may_end = asyncio.Event()

    async def wait(request: UpdateRequest, narrator: Narrator) -> UpdateResult:
        await may_end.wait()
        return UpdateResult(True, "it serves")

    async with listen_for_requests(folder, wait, {OwnerVerb.CONFIRM_TIME: answer_at_once}):
        update = asyncio.create_task(
            asyncio.to_thread(ask_for_update, folder, UpdateRequest(engine="good"), Listener())
        )
        answer = await asyncio.to_thread(ask, folder, OwnerVerb.CONFIRM_TIME)
        assert (answer, update.done()) == (await answer_at_once(), False)
        may_end.set()
        assert (await update).is_in_force


@pytest.mark.parametrize(
    ("act", "message"),
    [(refuse, "The gateway does not answer"), (break_down, "An error of r1plus: ValueError: embedded null byte")],
    ids=["a refusal", "an error of our own"],
)
async def test_what_the_owner_does_not_get_is_said(
    folder: DataFolder, act: Callable[[], Awaitable[str]], message: str
) -> None:
    async with listen_for_requests(folder, carry_out, {OwnerVerb.SIGN_TOKEN: act}):
        with pytest.raises(EdgeError, match=message):
            await asyncio.to_thread(ask, folder, OwnerVerb.SIGN_TOKEN)


async def test_a_verb_that_is_none_is_refused(folder: DataFolder) -> None:
    async with listen_for_requests(folder, carry_out, {}):
        assert b'"Refused"' in await asyncio.to_thread(send, folder, b'{"verb": "Erase"}\n')


async def test_an_owner_whose_serve_is_of_an_earlier_release_is_told_what_to_do(folder: DataFolder) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        refusal = "The request cannot be read: UpdateRequest.verb: unknown field"
        writer.write(dumps(ControlMessage(MessageKind.REFUSED, refusal)).encode() + b"\n")
        writer.close()

    with short_path(folder.control) as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        await asyncio.start_unix_server(answer, sock=listener)
        with pytest.raises(EdgeError, match=r"older than this r1plus.*`r1plus serve stop --data \S+`, and start it"):
            await asyncio.to_thread(ask, folder, OwnerVerb.SIGN_TOKEN)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_of_the_machine_is_told_whose_folder_it_is(folder: DataFolder) -> None:
    folder.root.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_path(folder.control) as path:
            listener.bind(path)
        listener.listen()
        os.seteuid(12345)
        try:
            with pytest.raises(
                EdgeError, match="it is another user's, and you may not reach what serves there; run this"
            ):
                ask(folder, OwnerVerb.SIGN_TOKEN)
        finally:
            os.seteuid(0)


def test_an_owner_who_reaches_nobody_is_told_so(folder: DataFolder) -> None:
    with pytest.raises(EdgeError, match=r"nothing serves there now \(No such file or directory\); start it"):
        ask(folder, OwnerVerb.CONFIRM_TIME)
