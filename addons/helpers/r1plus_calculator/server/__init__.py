"""The process: one socket, workers that each answer one request, and their supervision."""
