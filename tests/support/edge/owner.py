"""What the owner of a machine does with its gateway: documents, calculations, conversations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openai import OpenAI

from support.edge.served import Served
from support.waiting import wait_until

HANDBOOK = b"# Archive\n\n## Keys\n\nThe key of the archive hangs in room 214, beside the window.\n"
QUESTION = "In which room is the key of the archive?"
SECONDS = 600.0
"""For a helper to start and answer on a busy machine."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One who has the first key."""

    client: OpenAI

    def calculate(self, expression: str) -> Any:
        """Return a calculation's result."""
        return self.client.post("/calculate", body={"expression": expression}, cast_to=object)

    def add_handbook(self) -> str:
        """Upload a document and wait until it was read; return its vector store."""
        store = self.client.vector_stores.create(name="handbook")
        file = ("handbook.md", HANDBOOK)
        added = self.client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=file)
        assert added.status == "completed", added
        return store.id

    def search(self, store: str) -> str:
        """Search the document; return by what it was found."""
        found = self.client.vector_stores.search(store, query=QUESTION)
        assert "room 214" in found.data[0].content[0].text
        return str(found.r1plus["search"])  # type: ignore[attr-defined]

    def until_hybrid(self, store: str) -> None:
        """Wait until the embedding engine is there, and the document has vectors."""
        wait_until(lambda: self.search(store) == "hybrid", "it is searched by its meaning", SECONDS, period_s=1.0)

    def cite(self, store: str) -> str:
        """Ask what only the document says; return the file that the answer cites."""
        tools: Any = [{"type": "file_search", "vector_store_ids": [store]}]
        answer = self.client.responses.create(model="edge", input=QUESTION, tools=tools, max_output_tokens=48)
        assert "214" in answer.output_text
        content: Any = answer.output[-1]
        return str(content.content[0].annotations[0].filename)

    def begin(self) -> str:
        """Say something in a new conversation; return it."""
        conversation = self.client.conversations.create()
        self.say(conversation.id, "The code of the cabin is 9026.")
        return conversation.id

    def say(self, conversation: str, text: str) -> Any:
        """Say something more, with memory of what was said."""
        return self.client.responses.create(
            model="edge",
            conversation=conversation,
            input=text,
            max_output_tokens=16,
            extra_body={"memory": {"enabled": True}},
        ).r1plus["memory"]  # type: ignore[attr-defined]


@contextmanager
def owning(served: Served) -> Iterator[Owner]:
    """Use the machine's first key for the block."""
    key = served.folder.key.read_text().strip()
    with OpenAI(base_url=f"{served.status.url}/v1", api_key=key, timeout=SECONDS, max_retries=0) as client:
        yield Owner(client)
