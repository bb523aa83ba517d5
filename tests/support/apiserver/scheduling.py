"""Which worker of pytest runs a file of the tests against the API server."""

import re
from functools import cached_property
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

INSTALLED_SERVER = re.compile(r"\b(installed_server: ApiServer|admin: Person|AdmissionWorld|CompromisedOperator)\b")
"""How a test or a fixture asks for the server with the chart."""


class ServerScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Give a worker whole files, and one worker all files that ask for the server with the chart.

    That server costs 18 s of processor time to start and 6 s a minute: each worker with such a file starts one.
    """

    @cached_property
    def _on_installed_server(self) -> frozenset[str]:
        files = {test.split("::")[0] for test in next(iter(self.registered_collections.values()))}
        root = Path(self.config.rootpath)
        return frozenset(file for file in files if INSTALLED_SERVER.search((root / file).read_text()))

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "installed server" if file in self._on_installed_server else file
