"""Engines of kind embedding: sentence-transformers models of the BERT family, as OpenVINO IR with pooling inside."""
