"""How to call what serves: the lines that are printed for a person, to copy as they are."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from r1plus_edge.data_folder import DataFolder
from r1plus_edge.report import ServeStatus


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written there goes to systemd's journal. Not only the owner of the data folder reads that."""
    status = os.fstat(descriptor)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def describe_usage(status: ServeStatus, folder: DataFolder, *, shows_key: bool = True) -> str:
    """Return page, address, key, a line for curl, a program, and how to see the state and to stop.

    `shows_key`: whether it has the key itself, not the file that has it.
    """
    if shows_key:
        key = folder.key.read_text(encoding="utf-8").strip()
        header, argument = f"'Authorization: Bearer {key}'", f'"{key}"'
    else:
        key, argument = f"in {folder.key}", f"open({str(folder.key)!r}).read().strip()"
        header = f'"Authorization: Bearer $(cat {shlex.quote(str(folder.key))})"'
    body = f'{{"model": "{status.deployment}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
    command = Path(sys.prefix) / "bin" / "r1plus"
    data = f" --data {shlex.quote(str(folder.root))}"
    measured = f"verdict {status.verdict}, {status.accuracy} right" if status.accuracy else "not measured yet"
    return f"""
Serving {status.deployment}: {status.engine}, {measured}.

  page     {status.url}/
  address  {status.url}/v1
  key      {key}

  curl {status.url}/v1/chat/completions -H {header} -H 'Content-Type: application/json' \\
    -d '{body}'

  from openai import OpenAI

  client = OpenAI(base_url="{status.url}/v1", api_key={argument})
  answer = client.chat.completions.create(
      model="{status.deployment}", messages=[{{"role": "user", "content": "{QUESTION}"}}]
  )
  print(answer.choices[0].message.content)

  state    {command} serve status{data}
  stop     {command} serve stop{data}
"""


QUESTION = "What is the capital of Sweden?"
