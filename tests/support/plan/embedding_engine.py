"""An R1PlusEngine of kind embedding, for plans."""

from r1plus_model_repo.catalog.embedding import EmbeddingEngine, EmbeddingEngineSpec

EMBEDDING_ENGINE = EmbeddingEngine(
    "minilm",
    EmbeddingEngineSpec.model_validate(
        {
            "kind": "embedding",
            "family": "minilm",
            "version": "1.0.0",
            "precision": "FP16",
            "backend": "openvino",
            "artifact": {"image": "registry.local/minilm:1", "sha256": "5a" * 32},
            "requirements": {"cpu": "2500m", "weightsMemory": "140Mi", "runtimeMemory": "240Mi"},
            "embedding": {"dimensions": 384, "mostTokens": 256, "parameters": 22_000_000},
        }
    ),
)
