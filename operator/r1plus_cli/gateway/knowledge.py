"""`r1plus knowledge`: documents of a key's knowledge base, through the tenant's gateway."""

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.gateway.admin_api import LONG_SECONDS, CallerSession, Json, open_caller_session
from r1plus_cli.gateway.target import GatewayOption, find_target
from r1plus_cli.options import (
    KubeconfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    open_console,
    print_document,
    print_table,
)
from r1plus_contract.plain_text import to_printable

knowledge_app = typer.Typer(
    name="knowledge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Adds documents to a knowledge base, searches and removes them: as an application does, with its key.

The key is read from R1PLUS_API_KEY. A knowledge base is a vector store, named by `--store`. See docs/knowledge.md.
""",
)
StoreOption = Annotated[str, typer.Option("--store", help="Name or id of the vector store.")]
EndUserOption = Annotated[
    str, typer.Option("--end-user", help="Whose it is; by default the key's, for all its end users.")
]
DIGEST: Final = "sha256"
"""Attribute of a file in a vector store: what is there already is not sent again."""
POLL_SECONDS: Final = 0.5
PAGE: Final = 100


@knowledge_app.command("add")
def add_command(
    files: Annotated[
        list[Path], typer.Argument(help="Text, Markdown, HTML, PDF or DOCX.", exists=True, dir_okay=False)
    ],
    store: StoreOption,
    is_waiting: Annotated[bool, typer.Option("--wait/--no-wait", help="Until all are read.")] = True,
    end_user: EndUserOption = "",
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Upload documents into a vector store, which is made if it is not there.

    What was uploaded before with the same content is not sent again, so a cut run goes on where it was.

    Example: `r1plus knowledge add handbook.pdf notes.md --store handbook -n team-credit`
    """
    console = Console(stderr=True, soft_wrap=True)
    with open_caller_session(find_target(kubeconfig, namespace, gateway), end_user) as session:
        store_id = _find_store(session, store) or session.call("POST", "/vector_stores", json={"name": store})["id"]
        known = {one["attributes"].get(DIGEST): one["id"] for one in _list_files(session, store_id)}
        with _open_progress(console) as progress:
            added = [_add(session, progress, store_id, path, known) for path in files]
            problems = [_wait(session, progress, store_id, *one) for one in added] if is_waiting else []
    if failed := [problem for problem in problems if problem]:
        raise CliError(to_printable("; ".join(failed)))
    for path, file_id, _ in added:
        sys.stdout.write(f"{file_id} {path.name}\n")


@knowledge_app.command("list")
def list_command(
    store: Annotated[str, typer.Option("--store", help="Its files; by default all vector stores are listed.")] = "",
    end_user: EndUserOption = "",
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List vector stores, or the files of one with how far each was read."""
    with open_caller_session(find_target(kubeconfig, namespace, gateway), end_user) as session:
        if not store:
            entries, rows = _describe_stores(list(_list_pages(session, "/vector_stores")))
            heads = ("ID", "NAME", "FILES", "CHUNKS", "BYTES", "SEARCH")
        else:
            entries, rows = _describe_files(session, _require_store(session, store))
            heads = ("ID", "FILE", "STATE", "PAGES", "CHUNKS", "PROBLEM")
    if output is not Output.TABLE:
        print_document(entries, output)
        return
    print_table(heads, [tuple(map(str, row)) for row in rows])


@knowledge_app.command("search")
def search_command(
    question: Annotated[str, typer.Argument(help="In your words.")],
    store: StoreOption,
    most: Annotated[int, typer.Option("--max", min=1, max=50, help="Passages.")] = 5,
    end_user: EndUserOption = "",
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print the passages that answer a question best, with their sources.

    Example: `r1plus knowledge search "What may a hotel cost?" --store handbook -n team-credit`
    """
    with open_caller_session(find_target(kubeconfig, namespace, gateway), end_user) as session:
        store_id = _require_store(session, store)
        body = {"query": question, "max_num_results": most}
        answer = session.call("POST", f"/vector_stores/{store_id}/search", json=body, seconds=LONG_SECONDS)
    if output is not Output.TABLE:
        print_document(answer, output)
        return
    console = open_console()
    for number, one in enumerate(answer["data"], 1):
        place = one["r1plus"]
        source = [one["filename"], *([f"page {place['page']}"] if place["page"] else []), place["heading"]]
        head = f"{number}. {', '.join(part for part in source if part)} ({one['score']:.2f})"
        console.print(Text(to_printable(head), style="bold"))
        for line in one["content"][0]["text"].split("\n"):
            console.print(Text(to_printable(line)))
    if not answer["data"]:
        console.print("Nothing was found")


@knowledge_app.command("remove")
def remove_command(
    store: StoreOption,
    file: Annotated[str, typer.Option("--file", help="Id of one file; by default the store with all files.")] = "",
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    end_user: EndUserOption = "",
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Delete a file, or a vector store with all its files, also from all other vector stores. This cannot be undone."""
    with open_caller_session(find_target(kubeconfig, namespace, gateway), end_user) as session:
        store_id = _require_store(session, store)
        ids = [file] if file else [one["id"] for one in _list_files(session, store_id)]
        subject = f"file {file}" if file else f"vector store {store} with {len(ids)} files"
        everywhere = "it is" if file else "the files are"
        if not is_confirmed:
            typer.confirm(
                f"Delete {subject}? Also where {everywhere} in other vector stores. This cannot be undone", abort=True
            )
        for one in ids:
            session.call("DELETE", f"/files/{one}")
        if not file:
            session.call("DELETE", f"/vector_stores/{store_id}")
    sys.stdout.write(f"Deleted {subject}\n")


class _CountedFile:
    """A file whose reading moves a progress bar."""

    def __init__(self, file: BinaryIO, progress: Progress, task: TaskID) -> None:
        self._file = file
        self._progress = progress
        self._task = task

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        self._progress.advance(self._task, len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _open_progress(console: Console) -> Progress:
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.fields[state]}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _add(
    session: CallerSession, progress: Progress, store_id: str, path: Path, known: dict[str, str]
) -> tuple[Path, str, TaskID]:
    """Upload a file unless its content is there, and add it; return its id and its progress bar."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    task = progress.add_task("", total=path.stat().st_size, name=path.name, state="uploading")
    if digest in known:
        return path, known[digest], task
    with path.open("rb") as file:
        parts = {"file": (path.name, _CountedFile(file, progress, task))}
        fields = {"purpose": "assistants"}
        made = session.call("POST", "/files", data=fields, files=parts, seconds=LONG_SECONDS)
    body = {"file_id": made["id"], "attributes": {DIGEST: digest}}
    session.call("POST", f"/vector_stores/{store_id}/files", json=body)
    known[digest] = made["id"]
    return path, made["id"], task


def _wait(session: CallerSession, progress: Progress, store_id: str, path: Path, file_id: str, task: TaskID) -> str:
    """Wait until a file is read; return why it cannot be, or nothing."""
    while True:
        found = session.call("GET", f"/vector_stores/{store_id}/files/{file_id}")
        about = found["r1plus"]
        state = f"{about['pages']} pages, {about['chunks']} chunks"
        progress.update(task, completed=progress.tasks[task].total or 0, state=f"{found['status']}: {state}")
        if found["status"] != "in_progress":
            problem = found["last_error"]
            return "" if problem is None else str(problem["message"])
        time.sleep(POLL_SECONDS)


def _find_store(session: CallerSession, name: str) -> str:
    """Return the id of a vector store; empty if there is none. Raises UsageError for a name that several have."""
    found = [one["id"] for one in _list_pages(session, "/vector_stores") if name in (one["id"], one["name"])]
    if len(found) > 1:
        raise UsageError(
            f"--store: {len(found)} vector stores have the name {name}; write one's id: {', '.join(found)}"
        )
    return found[0] if found else ""


def _require_store(session: CallerSession, name: str) -> str:
    store_id = _find_store(session, name)
    if not store_id:
        raise UsageError(f"--store: there is no vector store {name}; see: r1plus knowledge list")
    return store_id


def _list_files(session: CallerSession, store_id: str) -> list[Json]:
    return list(_list_pages(session, f"/vector_stores/{store_id}/files"))


def _list_pages(session: CallerSession, path: str) -> Iterator[Json]:
    after: dict[str, str] = {}
    while True:
        page = session.call("GET", path, params={"limit": str(PAGE), **after})
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _describe_stores(stores: list[Json]) -> tuple[list[Json], list[tuple[Any, ...]]]:
    return stores, [
        (
            one["id"],
            one["name"],
            one["file_counts"]["total"],
            one["r1plus"]["chunks"],
            one["usage_bytes"],
            one["r1plus"]["search"],
        )
        for one in stores
    ]


def _describe_files(session: CallerSession, store_id: str) -> tuple[list[Json], list[tuple[Any, ...]]]:
    names = {one["id"]: one["filename"] for one in _list_pages(session, "/files")}
    files = _list_files(session, store_id)
    rows = []
    for one in files:
        about, problem = one["r1plus"], one["last_error"]
        text = problem["message"] if problem else ""
        if about["unreadable_pages"]:
            text = text or f"{len(about['unreadable_pages'])} pages cannot be read"
        rows.append((one["id"], names.get(one["id"], ""), one["status"], about["pages"], about["chunks"], text))
    return files, rows
