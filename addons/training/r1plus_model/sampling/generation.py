"""Text from a checkpoint: what `torch.hub.load` returns. R1+'s architecture, or a Llama."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.engine.llama_architecture import ModelError
from r1plus_model.checkpoint import load_model
from r1plus_model.encoder import Encoder, list_end_ids, read_encoder
from r1plus_model.errors import DistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.answer_end import MOST_NEW_TOKENS, StopRule, check_length_and_stop
from r1plus_model.sampling.decoding import decode_greedily


@dataclass(frozen=True, slots=True)
class Generator:
    """A model with its tokenizer and chat template."""

    model: R1PlusModel
    encoder: Encoder
    end_ids: frozenset[int]

    def generate(self, prompt: str, max_new_tokens: int = MOST_NEW_TOKENS, stop: Sequence[str] = ()) -> str:
        """Return the most likely answer to the prompt, which is put into the chat template; it ends before `stop`.

        Raises:
            ModelError: a value is out of range, prompt and answer are longer than the sequences of training, or the
                chat template cannot be rendered.
        """
        check_length_and_stop(max_new_tokens, stop)
        try:
            ids = self.encoder.encode_prompt(prompt)
        except DistillationError as error:
            raise ModelError(str(error)) from error
        if len(ids) + max_new_tokens > self.model.shape.context:
            raise ModelError(
                f"max_new_tokens: {max_new_tokens}, and the prompt has {len(ids)} tokens: together more than"
                f" {self.model.shape.context}, the longest sequence (max_position_embeddings); lower it, or shorten the"
                " prompt"
            )
        end = StopRule(self.end_ids, stop, self.encoder.decode)
        (answer,) = decode_greedily(self.model, [ids], max_new_tokens, end.is_reached)
        return end.cut(answer)


def open_generator(folder: Path) -> Generator:
    """Return the model in the folder of a checkpoint, in 32 bits.

    Raises:
        ModelError: it is no checkpoint that this architecture computes, or its tokenizer cannot be used.
    """
    if not folder.is_dir():
        raise ModelError(f"checkpoint: {folder} is not a folder; give that of a Hugging Face checkpoint")
    model = load_model(folder).eval()
    try:
        encoder = read_encoder(folder, model.shape.vocabulary, "checkpoint")
        end_ids = list_end_ids(folder, encoder)
    except DistillationError as error:
        raise ModelError(str(error)) from error
    return Generator(model, encoder, frozenset(end_ids))
