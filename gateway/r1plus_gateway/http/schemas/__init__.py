"""JSON schemas that constrain answers, and the tools that are made of them."""
