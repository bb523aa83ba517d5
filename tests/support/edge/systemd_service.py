"""A unit of `r1plus serve install` on a machine that a real systemd has booted."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_edge.data_folder import DataFolder
from r1plus_edge.report import ServePhase, read_status
from r1plus_edge.start.service import NAME
from support.edge.served import START_SECONDS
from support.edge.systemd_machine import SystemdMachine
from support.waiting import wait_until

SOFTWARE = "/opt/r1plus/software"
"""Where the machine has the software of a service of the system."""
PROGRAM = f"{SOFTWARE}/current/bin/r1plus"


@dataclass(frozen=True, slots=True)
class Service:
    """A unit on the machine, of the system or of a user."""

    machine: SystemdMachine
    data: str
    """Its data folder, as the machine names it."""
    user: str = ""
    name: str = NAME

    def run(self, command: str) -> str:
        """Run a line of a shell as the unit's owner, and return what it prints."""
        if not self.user:
            return self.machine.check(command, environ={"XDG_CACHE_HOME": "/var/cache"})
        folder = f"/run/user/{self.machine.check(f'id -u {self.user}')}"
        return self.machine.check(command, self.user, {"XDG_RUNTIME_DIR": folder})

    def control(self, words: str) -> str:
        """Run `systemctl` as its owner."""
        return self.run(f"systemctl{' --user' if self.user else ''} {words}")

    def read_journal(self, words: str) -> str:
        """Return what systemd and the unit's processes have said since the machine booted."""
        field = "USER_UNIT" if self.user else "UNIT"
        return self.machine.check(
            f"journalctl --no-pager -b -o cat {words} {field}={self.name}.service + _SYSTEMD_{field}={self.name}.service"
        )

    def read(self, name: str) -> str:
        """Return a property of the unit, as systemd has it."""
        return self.control(f"show {self.name} --value -p {name}")

    @property
    def folder(self) -> DataFolder:
        """The data folder, to this machine."""
        return DataFolder(Path(f"/proc/{self.machine.init}/root{self.data}"))

    def probe(self) -> Any:
        """Return what a process of the unit may do that started with it."""
        lines = self.read_journal("").splitlines()
        (line,) = (line for line in lines if line.startswith('{"probe"'))
        return json.loads(line)["probe"]

    def add_process(self, command: str) -> None:
        """Let the unit start a process more, beside `serve` and with the same limits."""
        folder = f"/home/{self.user}/.config/systemd/user" if self.user else "/etc/systemd/system"
        text = f"[Service]\\nExecStartPost={command}\\n"
        self.run(f"mkdir {folder}/{self.name}.service.d && printf '{text}' >{folder}/{self.name}.service.d/more.conf")

    def until_serving(self) -> None:
        """Wait until the unit's process serves."""

        def look() -> bool:
            status = read_status(self.folder.status)
            if status is None or status.phase is not ServePhase.SERVING:
                return False
            # Of a process that was killed there is a status, too, and after a boot its number may be this one's.
            return str(status.pid) == self.read("MainPID") and "\n  curl " in self.read_journal("")

        wait_until(look, "it serves", START_SECONDS, period_s=0.5, evidence=lambda: self.read_journal(""))

    @property
    def software(self) -> str:
        """Where the software of its owner is, as the machine names it."""
        return f"/home/{self.user}/.local/share/r1plus/software" if self.user else SOFTWARE

    @property
    def program(self) -> str:
        """The `r1plus` of its owner's software."""
        return f"{self.software}/current/bin/r1plus"

    @property
    def slot(self) -> str:
        """Name of the software that serves."""
        command = self.run(f"tr '\\0' ' ' </proc/{self.read('MainPID')}/cmdline")
        found = re.search(rf"{self.software}/([0-9a-f]+)/", command)
        return found[1] if found is not None else ""

    @property
    def current(self) -> str:
        """Name of the software that the next start runs."""
        return self.run(f"basename $(readlink -f {self.software}/current)")

    def start_update(self, bundle: str, key: str) -> "subprocess.Popen[str]":
        """Start an update by a bundle, as its owner gives it: of a service of the system root."""
        command = f"{self.program} serve update {bundle} --key {key} --data {self.data}"
        return self.machine.start(command, self.user, {} if self.user else {"R1PLUS_CACHE": "/var/cache/r1plus"})

    def ask(self) -> str:
        """Return the answer to the line for curl that the journal has."""
        lines = self.read_journal("").splitlines()
        first = max(number for number, line in enumerate(lines) if line.startswith("  curl "))
        return self.run("\n".join(lines[first : first + 2]))
