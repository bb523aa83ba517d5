"""SQLite databases for the registry's tests, each a file of its own."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from support.scratch import make_scratch_folder


class Sqlite:
    """A folder for databases; they go with it."""

    def __init__(self) -> None:
        self._folder = make_scratch_folder("r1plus-sqlite-")

    def close(self) -> None:
        """Remove all databases."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def scratch(self, template: str = "") -> Iterator[str]:
        """Yield the DSN of a new database, a copy of the one that `template` is the DSN of."""
        path = self._folder / uuid.uuid4().hex / "registry.db"
        path.parent.mkdir()
        if template:
            shutil.copy(template.removeprefix("sqlite:///"), path)
        yield f"sqlite:///{path}"
