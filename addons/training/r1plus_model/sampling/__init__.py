"""Drawing tokens from a model, one answer or many at a time."""
