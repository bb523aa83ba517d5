"""The Triton model under the name that model.py of earlier deliveries imports; see `triton_model`."""

from r1plus_model_repo.backends.triton_model import TritonPythonModel, TritonReply

__all__ = ["TritonPythonModel", "TritonReply"]
