"""The logits of an engine folder by OpenVINO, in FP32: `python -m checkpoint.openvino_logits FOLDER OUT.npy ID...`."""

import sys

import numpy
import openvino


def main(folder: str, out: str, *ids: str) -> None:
    """Write (tokens, vocabulary)."""
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2, "KV_CACHE_PRECISION": "f16"}
    request = core.compile_model(f"{folder}/openvino_model.xml", "CPU", options).create_infer_request()
    tokens = numpy.array([[int(one) for one in ids]], numpy.int64)
    inputs = {
        "input_ids": tokens,
        "attention_mask": numpy.ones_like(tokens),
        "position_ids": numpy.arange(tokens.shape[1])[None],
        "beam_idx": numpy.zeros(1, numpy.int32),
    }
    names = {name for port in request.model_inputs for name in port.names}
    request.infer({name: value for name, value in inputs.items() if name in names})
    numpy.save(out, request.get_output_tensor(0).data[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
