"""The tool `code_interpreter`: programs of a model, and their rounds."""
