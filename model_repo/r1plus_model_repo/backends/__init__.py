"""What Triton loads. Only the contract, the standard library and the inference library: the serving image is small.
R1+'s own architecture is a library of ours, `r1plus_model`: only `assembly` imports it.

triton_model       the Triton model: tensors in, responses out                    (Triton's Python backend)
  requests         the client's request, checked
  constraint       schemas and grammars of a request: their size, and the memory for them
  engine_loop      one thread that owns the engine: admit, step, read, answer     (independent of Triton and engines)
    text           tokens to text, up to a stop string; tokenizers, chat templates, control tokens
  failures         answers a request that fails before the engine has it
  heartbeat        shows probes that the engine makes progress
  guard            ends the server when its engine is lost
      openvino         OpenVINO GenAI's continuous batching, on CPU               (independent of Triton, and
      vllm_engine      vLLM, on GPUs                                               imported one at a time)
      trtllm_engine    TensorRT-LLM's executor, on one GPU
      torch_engine     R1+'s own architecture in torch, on CPU
        assembly       the add-on that computes it, where it is installed
        generations    running requests, if an engine returns all tokens at once
openvino_genai     the Triton model under its earlier name
"""
