"""Asks a model through its tenant's gateway with OpenAI's client.

It reads OPENAI_BASE_URL (http://HOST/v1) and OPENAI_API_KEY.
"""

from openai import OpenAI

answer = OpenAI().chat.completions.create(
    model="credit",
    messages=[{"role": "user", "content": "What is the capital of Sweden?"}],
)
print(answer.choices[0].message.content)
print("answered by", answer.system_fingerprint)
