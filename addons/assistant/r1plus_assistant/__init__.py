"""The assistant: Responses, conversations, memory, knowledge, files, code, mathematics, vectors."""
