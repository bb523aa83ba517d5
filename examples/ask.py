"""Asks a model through its tenant's gateway, with OpenAI's client.

OPENAI_BASE_URL is such as http://gateway.team-credit.svc/v1, and OPENAI_API_KEY a key that `r1plus key create` printed.
"""

from openai import OpenAI

answer = OpenAI().chat.completions.create(
    model="credit", messages=[{"role": "user", "content": "What is the capital of Sweden?"}]
)
print(answer.choices[0].message.content)
print("answered by", answer.system_fingerprint)
