"""A public question set that a package ships: Perl's list of frequent questions, in Debian's `perl-doc`.

306 questions, each with its answer, by many authors; they may be redistributed under the same terms as Perl. The
answers are cut into chunks as documents are, without the questions. The package is fetched by apt-get and not kept in
this repository. The texts are pinned, not the package: its revisions have the same ones.
"""

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Final

from bench.knowledge.question_sets import Question, QuestionSet
from r1plus_assistant.knowledge.chunking import Chunker, ChunkSize, describe_passage
from r1plus_contract.documents import TextBlock

PACKAGE: Final = "perl-doc"
SHA256: Final = "75baafa7ce026b42c1f5e997266438f2f79aff4ddc96723ae4140aa1b6f4eb30"
"""Of the nine texts, one after the other."""
_INDEX: Final = re.compile(r"X<[^<>]*>")
_LONG: Final = re.compile(r"[BCIFSL]<<+ (.*?) >>+")
_LINK: Final = re.compile(r"L<(?:([^<>|]*)\|)?([^<>]*)>")
_SHORT: Final = re.compile(r"[BCIFS]<([^<>]*)>")
_QUESTION: Final = re.compile(r"^=head2 ", re.MULTILINE)
_SECTION: Final = re.compile(r"^=head1 ", re.MULTILINE)
_COMMAND: Final = re.compile(r"^=\w+.*$", re.MULTILINE)
_MOST_NESTED: Final = 3


class UnavailableSetError(Exception):
    """The package cannot be had, or has other texts; the message says which."""


def load_perl_faq(cache: Path) -> QuestionSet:
    """Return the set; the package is fetched into `cache` once. Raises UnavailableSetError."""
    texts = _read_texts(fetch_package(cache))
    if (digest := hashlib.sha256("".join(texts).encode()).hexdigest()) != SHA256:
        raise UnavailableSetError(f"{PACKAGE}: its texts have sha256 {digest}, not {SHA256}; look what has changed")
    entries = [entry for text in texts for entry in _read_entries(text)]
    chunks = [(number, text) for number, (_, answer) in enumerate(entries) for text in _cut(answer)]
    questions = [Question(number, question) for number, (question, _) in enumerate(entries)]
    return QuestionSet("perl_faq", chunks, {"": questions})


def fetch_package(cache: Path) -> Path:
    """Return the folder with the package's files; it is fetched once. Raises UnavailableSetError."""
    folder = cache / "knowledge" / PACKAGE
    if not list(folder.glob("usr/share/perl/*/pod/perlfaq9.pod")):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=folder, check=True, capture_output=True)
            (package,) = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True, capture_output=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise UnavailableSetError(f"{PACKAGE} cannot be fetched by apt-get: {error}; run apt-get update") from error
    return folder


def _read_texts(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("usr/share/perl/*/pod/perlfaq[1-9].pod"))]


def _read_entries(text: str) -> list[tuple[str, str]]:
    """Return questions with their answers."""
    entries = []
    for part in _QUESTION.split(text)[1:]:
        question, _, answer = part.partition("\n\n")
        answer = _COMMAND.sub("", _SECTION.split(answer)[0])
        entries.append((" ".join(strip_marks(question).split()), strip_marks(answer).strip()))
    return entries


def strip_marks(text: str) -> str:
    """Return a text without marks of its format, and without the words of an index, which authors put into it."""
    text = _INDEX.sub("", text)
    for _ in range(_MOST_NESTED):
        text = _SHORT.sub(r"\1", _LINK.sub(lambda found: found[1] or found[2], _LONG.sub(r"\1", text)))
    return text.replace("E<gt>", ">").replace("E<lt>", "<")


def _cut(text: str) -> list[str]:
    chunker, chunks = Chunker(ChunkSize()), []
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            chunks += list(chunker.add(TextBlock(paragraph.strip())))
    return [describe_passage(chunk) for chunk in (*chunks, *chunker.finish())]
