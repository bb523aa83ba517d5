"""The process: one socket, a confined child for each document, and their supervision."""
