"""Uploads a document into a vector store, asks a question that it answers, and prints the answer with its citation.

OPENAI_BASE_URL and OPENAI_API_KEY are as in ask.py. The tenant keeps documents: `spec.gateway.knowledge`.
"""

import time

from openai import OpenAI

HANDBOOK = b"""# Archive

## Opening hours

The archive is open on Tuesdays and Thursdays from 9 to 12.

## Keys

The key of the archive hangs in room 214, beside the window.

## Loans

A box may be taken home for ten days.
"""

client = OpenAI()
file = client.files.create(file=("handbook.md", HANDBOOK), purpose="assistants")
store = client.vector_stores.create(name="handbook", file_ids=[file.id])
while client.vector_stores.retrieve(store.id).file_counts.in_progress:
    time.sleep(0.5)
answer = client.responses.create(
    model="credit",
    input="In which room is the key of the archive?",
    tools=[{"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 1}],
    max_output_tokens=32,
)
print(answer.output_text.strip())
message = next(item for item in answer.output if item.type == "message")
for citation in message.content[0].annotations:
    print("cited:", citation)
client.vector_stores.delete(store.id)
client.files.delete(file.id)
