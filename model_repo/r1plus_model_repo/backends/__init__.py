"""What Triton loads. Contract and standard library only, beside the inference library: the serving image is small.

openvino_genai   the Triton model: tensors in, responses out                    (Triton's Python backend)
  requests       what a client asked, checked
  engine_loop    one thread that owns the engine: admit, step, read, answer     (knows neither Triton nor OpenVINO)
    answer_text  tokens to text: whole characters, up to a stop string
  guard          ends the server when its engine is lost
      openvino_engine  the engine: OpenVINO GenAI's continuous batching             (knows no Triton)
"""
