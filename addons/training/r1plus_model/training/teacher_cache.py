"""What a teacher predicts for each example, computed once: its most likely tokens and their log-probabilities.

One file per example, written under another name and renamed: after a kill the missing ones are computed. A training
step then costs what training without a teacher costs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as functional
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1plus_model.errors import DamagedWorkError, DistillationError, StorageError
from r1plus_model.model import R1PlusModel
from r1plus_model.training.examples import Example

_TOKENS, _LOG_PROBABILITIES, _TEXT_LOSSES = "tokens", "log_probabilities", "text_losses"
_REPORT_EVERY: Final = 50
_HEADER_BYTES: Final = 4096
"""Of a file beside its numbers, with what a file system rounds up."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A teacher's predictions of the tokens of an example that count, (N)."""

    tokens: Tensor
    """Ids of the most likely ones, (N, K)."""
    log_probabilities: Tensor
    """Theirs among the whole vocabulary, at the temperature, (N, K)."""
    text_losses: Tensor
    """-log p of the token that the text has, at temperature 1, (N)."""


@dataclass(frozen=True, slots=True)
class TeacherCache:
    """The predictions of one teacher for a list of examples."""

    folder: Path
    top: int
    temperature: float

    def estimate_bytes(self, examples: Iterable[Example]) -> int:
        """Return the size of all files."""
        return sum(one.targets * (8 * self.top + 4) + _HEADER_BYTES for one in examples)

    def fill(
        self,
        load_teacher: Callable[[], R1PlusModel],
        examples: Mapping[int, Example],
        progress: Callable[[int, int], None],
        check_stop: Callable[[], None],
    ) -> None:
        """Compute what is missing of examples by number. The teacher is loaded only if something is.

        `progress` gets the number of an example, from 1, and how many there are.

        Raises:
            DistillationError: what the teacher predicts is no number, or cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = {number: one for number, one in examples.items() if not _has_content(self._locate(number))}
        if not missing:
            return
        teacher = load_teacher()
        for done, (number, example) in enumerate(missing.items()):
            check_stop()
            if done % _REPORT_EVERY == 0:
                progress(len(examples) - len(missing) + done + 1, len(examples))
            self._write(number, self._predict(teacher, example))

    def read(self, number: int) -> Prediction:
        """Return the predictions for an example.

        Raises:
            DistillationError: its file is damaged.
        """
        path = self._locate(number)
        try:
            stored = load_file(path)
            return Prediction(stored[_TOKENS].long(), stored[_LOG_PROBABILITIES], stored[_TEXT_LOSSES])
        except (OSError, SafetensorError, KeyError) as error:
            remedy = "remove the file, and it is made again"
            raise DamagedWorkError(f"{path}: damaged: {error}", remedy, path) from error

    def _write(self, number: int, prediction: dict[str, Tensor]) -> None:
        part = self.folder / f".part-{number}"
        try:
            save_file(prediction, part)
            part.replace(self._locate(number))
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"{self.folder}: what the teacher predicts cannot be written: {error}",
                "make room and start again: the run goes on there",
            ) from error

    def _locate(self, number: int) -> Path:
        return self.folder / f"{number:07}.safetensors"

    def _predict(self, teacher: R1PlusModel, example: Example) -> dict[str, Tensor]:
        ids = torch.tensor([example.tokens])
        with torch.no_grad():
            logits = teacher.compute_logits(teacher.compute_states(ids)[0, example.first - 1 : -1]).float()
            softened = functional.log_softmax(logits / self.temperature, dim=-1).topk(self.top, dim=-1)
            losses = functional.cross_entropy(logits, ids[0, example.first :], reduction="none")
        if not (softened.values.isfinite().all() and losses.isfinite().all()):
            raise DistillationError(
                "teacher: what it predicts is no number, so nothing can be learnt from it; get its checkpoint again"
            )
        return {
            _TOKENS: softened.indices.int(),
            _LOG_PROBABILITIES: softened.values.contiguous(),
            _TEXT_LOSSES: losses,
        }


def _has_content(path: Path) -> bool:
    """Return whether there is a file that no power cut has left empty."""
    return path.is_file() and path.stat().st_size > 0
