"""OpenVINO GenAI behind the loop, on CPU."""
