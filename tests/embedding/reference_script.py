"""Run in an environment of its own: vectors by transformers, as the model's card describes them, as JSON on a file.

`python reference_script.py MODEL TEXTS OUT`: a folder with the published model, a JSON list of texts, and the file to
write: a JSON list of base64 of float32, little-endian. Each text runs alone, filled up to a multiple of 32 tokens, since
each length is compiled once.
"""

import base64
import json
import sys
from pathlib import Path

import jax
import numpy as np
from transformers import AutoTokenizer, FlaxBertModel

MOST_TOKENS = 256


def main(folder: str, texts: str, out: str) -> None:
    """Write the vectors."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), FlaxBertModel.from_pretrained(folder)

    @jax.jit
    def encode(input_ids, attention_mask, token_type_ids):
        return model(input_ids, attention_mask, token_type_ids).last_hidden_state

    vectors = []
    for text in json.loads(Path(texts).read_text()):
        options = {"padding": True, "pad_to_multiple_of": 32, "return_tensors": "np"}
        tokens = tokenizer([text], truncation=True, max_length=MOST_TOKENS, **options)
        hidden = np.asarray(encode(**tokens), np.float64)[0]
        mean = hidden[tokens["attention_mask"][0] == 1].mean(axis=0)
        vector = (mean / np.linalg.norm(mean)).astype("<f4")
        vectors.append(base64.b64encode(vector.tobytes()).decode())
    Path(out).write_text(json.dumps(vectors))


if __name__ == "__main__":
    main(*sys.argv[1:])
