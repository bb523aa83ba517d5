"""GGUF to OpenVINO IR: model, tokenizer with its chat template, and detokenizer as files that are served read-only.

The GGUF reader opens its file for writing, which a read-only root refuses, so conversion happens once, where
engines are made. It runs in a process of its own, whose memory (several times the weights) ends with it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from r1plus_contract.delivery import hash_file
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.openvino.tokenizer_limit import unlimit

PARTS = ("model", "tokenizer", "detokenizer")
FILES = tuple(f"openvino_{part}.{kind}" for part in PARTS for kind in ("bin", "xml"))
_CONVERT = (
    "import sys, openvino_genai;"
    "openvino_genai.LLMPipeline(sys.argv[1], 'CPU', enable_save_ov_model=True, INFERENCE_NUM_THREADS=2)"
)
_DROPPED = 3
_TRY = (
    "import signal, sys, openvino_genai;"
    "tokenizer = openvino_genai.Tokenizer(sys.argv[1]);"
    "signal.alarm(int(sys.argv[2]));"
    "text = tokenizer.apply_chat_template([{'role': 'user', 'content': 'r1plus-question'}], True);"
    f"sys.exit(0 if 'r1plus-question' in text else {_DROPPED})"
)
# Outside of CI jobs OpenVINO writes an id under $HOME/intel at import, and tells Google Analytics of it.
_UNTOLD = {"CI": "true"}
_LAYER_NAME = re.compile(r'(<layer id="\d+" name=")([^"]*)(")')
_COUNTER = re.compile(r"(?<=_)\d+")


def convert(weights: Path, workspace: Path, target: Path, sha256: str | None = None) -> None:
    """Convert `weights` (copied into `workspace`, where the reader may write) to IR files in `target`.

    `sha256` of the weights where they were read before: ImportingError if the copy is not of them.
    """
    workspace.mkdir(parents=True)
    source = workspace / "weights.gguf"  # It knows a GGUF file by its name.
    shutil.copyfile(weights, source)
    if sha256 is not None and hash_file(source) != sha256:
        raise ImportingError(f"{weights.name}: changed while it was imported; import it again when it is whole")
    command = [sys.executable, "-c", _CONVERT, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | _UNTOLD)
    if done.returncode != 0:
        told = done.stderr.strip()[-800:] or f"it ended with status {done.returncode}; -9 is for want of memory"
        raise ImportingError(f"{weights.name}: conversion to OpenVINO IR failed: {told}")
    missing = [name for name in FILES if not (workspace / name).is_file()]
    if missing:
        raise ImportingError(f"{weights.name}: conversion made no {', '.join(missing)}")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if name.endswith(".xml"):
            (target / name).write_text(renumbered((workspace / name).read_text(encoding="utf-8")), encoding="utf-8")
        else:
            (workspace / name).replace(target / name)
    unlimit(target)


def try_template(folder: Path, name: str, seconds: int = 20) -> None:
    """Put one question through the chat template of the tokenizer in `folder`, as a pod will; ImportingError.

    The backend has an interpreter of its own, which knows less than Jinja, and a template is somebody's program: it
    runs in a process that an alarm ends. `name` is what the message calls the weights.
    """
    command = [sys.executable, "-c", _TRY, str(folder), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | _UNTOLD)
    if done.returncode == 0:
        return
    if done.returncode == -signal.SIGALRM:
        told = f"took longer than {seconds} s for one question"
    elif done.returncode == _DROPPED:
        told = "leaves the question out"
    else:
        told = f"the backend's interpreter says: {' '.join(done.stderr.split())[-400:]}"
    raise ImportingError(f"{name}: tokenizer.chat_template: {told}; mend it, or get the file from its publisher")


def renumbered(xml: str) -> str:
    """The IR with its layers' numbers counted from 0 in order of appearance.

    A layer nobody named is called after a counter of the whole process (`Constant_4700`), which says nothing of the
    model and may differ between machines; the digest must not.
    """
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return str(numbers.setdefault(match.group(), len(numbers)))

    return _LAYER_NAME.sub(lambda m: m.group(1) + _COUNTER.sub(number, m.group(2)) + m.group(3), xml)
