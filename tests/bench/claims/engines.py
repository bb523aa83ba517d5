"""Which engines are measured: on CPU one checkpoint in OpenVINO and in vLLM, or those that the command line names."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy
import openvino

from bench.claims.report import TWIN_SUFFIX
from bench.claims.worker import DTYPE, KV_BYTES
from devcluster.cache import cache_dir
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Backend, EngineSpec
from r1plus_model_repo.config_pbtxt import parse_config, render_config
from r1plus_model_repo.importing.engine import ENGINE, MANIFEST
from r1plus_model_repo.importing.openvino.ir import FILES
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_policies.engine.memory_fit import compute_fit
from support.engine.server import ENGINES
from support.vllm import environment
from support.vllm.engine import OPENVINO_TWIN, convert_smollm2, describe_on_cpu

MODEL: Final = "openvino_model"


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine, and the Python that opens it."""

    name: str
    spec: EngineSpec
    folder: Path
    python: str = sys.executable
    precision: str = "FP16"
    """Of the weights in memory, as far as the engine chooses it."""
    dtype: str = ""
    """Of vLLM on GPUs: the precision that it is asked for."""

    @property
    def is_twin(self) -> bool:
        """Whether it is here for its memory alone: the same numbers as another one, in FP32."""
        return self.name.endswith(TWIN_SUFFIX)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.spec.requirements.gpu is not None

    @property
    def file_bytes(self) -> int:
        """Size of the engine's files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def build_parameters(self, batch: int, context: int, threads: int) -> dict[str, str]:
        """Return what the worker opens it with: the parameters of its config.pbtxt. On CPU all have so many threads."""
        fit = compute_fit(self.spec.shape, batch, context)
        text = render_config(
            self.spec,
            batch=batch,
            context=context,
            kv_cache_bytes=fit.kv_cache_bytes,
            engine_path=str(self.folder),
        )
        parameters = {name: one.string_value for name, one in parse_config(text).parameters.items()}
        parameters["backend"] = self.spec.backend.value
        if not self.on_gpu:
            parameters["threads"] = str(threads)
        if self.dtype:
            bits = numpy.finfo(self.dtype).bits
            parameters |= {
                DTYPE: self.dtype,
                KV_BYTES: str(fit.kv_cache_bytes * bits // self.spec.shape.kv_element_bits),
            }
        return parameters


def list_on_cpu(scratch: Path, *, with_twin: bool, with_others: bool) -> list[Subject]:
    """Return SmolLM2-135M in OpenVINO, in FP32 as well, and in vLLM. New files are written below `scratch`."""
    folder = build_engines(cache_dir() / "engines", print, [OPENVINO_TWIN])[OPENVINO_TWIN].folder
    subjects = [Subject("openvino", ENGINES[OPENVINO_TWIN], folder)]
    if with_twin:
        expanded = expand_weights(folder, scratch / "fp32")
        subjects.append(replace(subjects[0], name=f"openvino{TWIN_SUFFIX}", folder=expanded, precision="FP32"))
    if with_others:
        checkpoint = convert_smollm2(scratch / "checkpoint")
        spec = describe_on_cpu(checkpoint).spec
        subjects.append(Subject("vllm", spec, checkpoint, str(environment.prepare()), "FP32"))
    return subjects


def read_given(words: Sequence[str]) -> list[Subject]:
    """Return the engines that the command line names, each as FOLDER=PYTHON.

    FOLDER is what `r1plus engine import` wrote; PYTHON has the backend's library.

    Raises:
        SystemExit: a word or a folder is not of that kind.
    """
    subjects = []
    for word in words:
        name, _, python = word.partition("=")
        folder = Path(name)
        if not python or not (folder / MANIFEST).is_file() or not Path(python).is_file():
            raise SystemExit(
                f"--engine {word}: expected FOLDER=PYTHON, the folder that r1plus engine import wrote ({MANIFEST} is in"
                " it) and the program python3 that has the backend's library"
            )
        (engine,) = load_catalog(folder / MANIFEST)
        if engine.spec.build is not None:
            raise SystemExit(f"--engine {word}: is built by its Job: build it here by trtllm-build, and import plan/")
        if engine.name in {one.name for one in subjects}:
            raise SystemExit(f"--engine {word}: {engine.name} is there already; import one of them under another name")
        subject = Subject(engine.name, engine.spec, folder / ENGINE, python, engine.spec.precision)
        if engine.spec.backend is Backend.VLLM and subject.on_gpu:
            subject = replace(subject, precision="FP16", dtype="float16")
            twin = replace(subject, name=f"{engine.name}{TWIN_SUFFIX}", precision="FP32", dtype="float32")
            subjects.append(twin)
        subjects.append(subject)
    return subjects


def expand_weights(folder: Path, target: Path) -> Path:
    """Write an OpenVINO engine with 16-bit weights to `target` with the same numbers in 32 bits; return that."""
    target.mkdir()
    model = openvino.Core().read_model(folder / f"{MODEL}.xml")
    wide: dict[str, openvino.op.Constant] = {}
    for node in model.get_ops():
        if node.get_type_name() != "Convert":
            continue
        source = node.input_value(0).get_node()
        if source.get_type_name() == "Constant" and source.get_element_type() == openvino.Type.f16:
            name = source.get_friendly_name()  # Input and output embeddings are one.
            wide[name] = wide.get(name) or openvino.op.Constant(source.data.astype(numpy.float32))
            node.output(0).replace(wide[name].output(0))
    openvino.save_model(model, target / f"{MODEL}.xml", compress_to_fp16=False)
    for name in FILES:
        if not name.startswith(MODEL):
            (target / name).symlink_to(folder / name)
    return target
