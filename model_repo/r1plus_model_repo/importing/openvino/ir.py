"""Conversion of GGUF to OpenVINO IR: model, tokenizer with its chat template, and detokenizer as read-only files.

The GGUF reader opens its file for writing, which a read-only root refuses. So conversion happens once, when an engine
is made. It runs in a process of its own, whose memory (several times the weights) is freed at the end.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from r1plus_contract.engine.delivery import hash_file
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.openvino.tokenizer_limit import remove_limit

PARTS = ("model", "tokenizer", "detokenizer")
FILES = tuple(f"openvino_{part}.{kind}" for part in PARTS for kind in ("bin", "xml"))
_CONVERT = (
    "import sys, openvino_genai;"
    "openvino_genai.LLMPipeline(sys.argv[1], 'CPU', enable_save_ov_model=True, INFERENCE_NUM_THREADS=2)"
)
_QUESTION_DROPPED = 3
_TRY = (
    "import signal, sys, openvino_genai;"
    "tokenizer = openvino_genai.Tokenizer(sys.argv[1]);"
    "signal.alarm(int(sys.argv[2]));"
    "text = tokenizer.apply_chat_template([{'role': 'user', 'content': 'r1plus-question'}], True);"
    f"sys.exit(0 if 'r1plus-question' in text else {_QUESTION_DROPPED})"
)
# Outside of CI jobs OpenVINO writes an id under $HOME/intel at import and sends it to Google Analytics.
NO_TELEMETRY = {"CI": "true"}
_LAYER_NAME = re.compile(r'(<layer id="\d+" name=")([^"]*)(")')
_COUNTER = re.compile(r"(?<=_)\d+")


def convert(weights: Path, workspace: Path, target: Path, sha256: str | None = None) -> None:
    """Convert `weights` (copied into `workspace`, where the reader may write) to IR files in `target`.

    `sha256` is the digest of the weights when they were read. Raise ImportingError if the copy differs from it.
    """
    workspace.mkdir(parents=True)
    source = workspace / "weights.gguf"  # The reader recognises a GGUF file by its name.
    shutil.copyfile(weights, source)
    if sha256 is not None and hash_file(source) != sha256:
        raise ImportingError(f"{weights.name}: changed during the import; import it again when it is complete")
    command = [sys.executable, "-c", _CONVERT, str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | NO_TELEMETRY)
    if result.returncode != 0:
        reason = result.stderr.strip()[-800:] or f"exit status {result.returncode}; -9 means out of memory"
        raise ImportingError(f"{weights.name}: conversion to OpenVINO IR failed: {reason}")
    missing_files = [name for name in FILES if not (workspace / name).is_file()]
    if missing_files:
        raise ImportingError(f"{weights.name}: the conversion did not write {', '.join(missing_files)}")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if name.endswith(".xml"):
            (target / name).write_text(
                renumber_layers((workspace / name).read_text(encoding="utf-8")), encoding="utf-8"
            )
        else:
            (workspace / name).replace(target / name)
    remove_limit(target)


def try_template(folder: Path, name: str, seconds: int = 20) -> None:
    """Apply the chat template of the tokenizer in `folder` to one question, as a pod does.

    Raise ImportingError if it fails.

    The backend has its own interpreter, which supports less than Jinja. A template is an untrusted program, so it runs
    in a process with a timeout. `name` is what the message calls the weights.
    """
    command = [sys.executable, "-c", _TRY, str(folder), str(seconds)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | NO_TELEMETRY)
    if result.returncode == 0:
        return
    if result.returncode == -signal.SIGALRM:
        reason = f"took longer than {seconds} s for one question"
    elif result.returncode == _QUESTION_DROPPED:
        reason = "leaves the question out"
    else:
        reason = f"the backend's interpreter says: {' '.join(result.stderr.split())[-400:]}"
    raise ImportingError(f"{name}: tokenizer.chat_template: {reason}; fix it, or get the file from its publisher")


def renumber_layers(xml: str) -> str:
    """Return the IR with the numbers in layer names counted from 0 in order of appearance.

    An unnamed layer is called after a counter of the process (`Constant_4700`), which may differ between machines; the
    digest must not.
    """
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return str(numbers.setdefault(match.group(), len(numbers)))

    return _LAYER_NAME.sub(lambda m: m.group(1) + _COUNTER.sub(number, m.group(2)) + m.group(3), xml)
