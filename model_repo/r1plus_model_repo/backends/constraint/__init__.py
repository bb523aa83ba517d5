"""What an answer must look like: schemas and grammars, their size, and the memory for them."""
