"""How to call what serves: the lines that are printed for a person, to copy as they are."""

import shlex
import sys
from pathlib import Path

from r1plus_edge.data_folder import DataFolder
from r1plus_edge.report import ServeStatus


def describe_usage(status: ServeStatus, folder: DataFolder) -> str:
    """Return page, address, key, a line for curl, a program, and how to see the state and to stop."""
    key = folder.key.read_text(encoding="utf-8").strip()
    body = f'{{"model": "{status.deployment}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
    command = Path(sys.prefix) / "bin" / "r1plus"
    data = f" --data {shlex.quote(str(folder.root))}"
    measured = f"verdict {status.verdict}, {status.accuracy} right" if status.accuracy else "not measured yet"
    return f"""
Serving {status.deployment}: {status.engine}, {measured}.

  page     {status.url}/
  address  {status.url}/v1
  key      {key}

  curl {status.url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{body}'

  from openai import OpenAI

  client = OpenAI(base_url="{status.url}/v1", api_key="{key}")
  answer = client.chat.completions.create(
      model="{status.deployment}", messages=[{{"role": "user", "content": "{QUESTION}"}}]
  )
  print(answer.choices[0].message.content)

  state    {command} serve status{data}
  stop     {command} serve stop{data}
"""


QUESTION = "What is the capital of Sweden?"
