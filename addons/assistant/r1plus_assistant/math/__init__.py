"""`math_mode` and `/v1/calculate`: calculations, and what answers report of them."""
