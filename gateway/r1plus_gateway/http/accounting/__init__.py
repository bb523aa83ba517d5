"""The cost of a request: admission, its bill, and refusals."""
