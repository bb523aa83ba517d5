"""What Triton loads. Contract and standard library only, beside the inference library: the serving image is small.

triton_model       the Triton model: tensors in, responses out                    (Triton's Python backend)
  requests         what a client asked, checked
  engine_loop      one thread that owns the engine: admit, step, read, answer     (knows neither Triton nor an engine)
    answer_text    tokens to text: whole characters, up to a stop string
  guard            ends the server when its engine is lost
      openvino_engine  OpenVINO GenAI's continuous batching, on CPU               (engines know no Triton, and are
      vllm_engine      vLLM, on GPUs                                               imported one at a time)
      trtllm_engine    TensorRT-LLM's executor, on one GPU
        generations    who runs, where an engine gives out all requests' tokens at once
        hf_tokens      a Hugging Face tokenizer and its chat template
openvino_genai     the Triton model by its earlier name
"""
