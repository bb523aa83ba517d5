"""Holds a conversation of eight turns through the tenant's gateway, whose last question is on the first turn.

OPENAI_BASE_URL and OPENAI_API_KEY are as in ask.py. The last prompt has room for a part of the conversation only, so
memory finds what the question is about. The tenant stores conversations: `spec.data.retentionDays`.
"""

from openai import OpenAI

client = OpenAI()
conversation = client.conversations.create()


def say(text: str, **fields: object) -> None:
    answer = client.responses.create(
        model="credit", conversation=conversation.id, input=text, max_output_tokens=24, extra_body=fields
    )
    print(f"> {text}\n{answer.output_text.strip()}")
    if fields:
        print(answer.r1plus["memory"])


say("My locker has the code 4711.")
say("What is the capital of Sweden?")
say("What is the opposite of hot?")
say("Name three primary colours.")
say("How many days does a week have?")
say("Name a fruit that is yellow.")
say("What is the largest ocean?")
say("What is the code of my locker?", memory={"enabled": True, "budget_tokens": 96})
client.conversations.delete(conversation.id)
