"""What Triton loads. Only the contract, the standard library and the inference library: the serving image is small.
R1+'s own architecture is a library of ours, `r1plus_model`: only `assembly` imports it.

triton_model       the Triton model: tensors in, responses out                    (Triton's Python backend)
  requests         the client's request, checked
  engine_loop      one thread that owns the engine: admit, step, read, answer     (independent of Triton and engines)
    answer_text    tokens to text: whole characters, up to a stop string
  failures         answers a request that fails before the engine has it
  heartbeat        shows probes that the engine makes progress
  guard            ends the server when its engine is lost
      openvino_engine  OpenVINO GenAI's continuous batching, on CPU               (independent of Triton, and
      vllm_engine      vLLM, on GPUs                                               imported one at a time)
      trtllm_engine    TensorRT-LLM's executor, on one GPU
      torch_engine     R1+'s own architecture in torch, on CPU
        assembly       the add-on that computes it, where it is installed
        generations    running requests, if an engine returns all tokens at once
        hf_tokens      a Hugging Face tokenizer and its chat template
openvino_genai     the Triton model under its earlier name
"""
