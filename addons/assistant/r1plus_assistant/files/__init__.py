"""Files and vector stores, and searches in them."""
