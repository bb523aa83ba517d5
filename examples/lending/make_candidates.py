"""Writes the candidates of the lender's golden suite: `python make_candidates.py > candidates.jsonl`.

Questions about loan applications that nobody has sent: names, employers and amounts are made here, from a fixed seed.
So the suite holds nothing of a real person, and everybody gets the same candidates.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

PER_STRATUM = 80
SEED = 20261128
FIRST = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Irene", "Jonas", "Karin", "Leo", "Maria")
LAST = ("Adams", "Berg", "Costa", "Dahl", "Evans", "Fischer", "Garcia", "Hansen", "Ivanov", "Jansen", "Keller", "Lopez")
PURPOSES = ("a boat", "a bicycle", "a car", "a house", "a kitchen", "a piano", "a tractor", "a truck", "a computer")
CITIES = ("Berlin", "Lisbon", "London", "Madrid", "Oslo", "Paris", "Prague", "Rome", "Vienna", "Warsaw")


@dataclass(frozen=True)
class Application:
    """One application: amounts in euros."""

    name: str
    city: str
    income: int
    loan: int
    purpose: str

    @property
    def text(self) -> str:
        """Return it as an officer would note it."""
        return (
            f"Application: {self.name} of {self.city} earns {self.income} euros a month and asks for {self.loan} euros"
            f" to buy {self.purpose}."
        )


def make_application(generator: random.Random) -> Application:
    """Return an application."""
    return Application(
        f"{generator.choice(FIRST)} {generator.choice(LAST)}",
        generator.choice(CITIES),
        100 * generator.randrange(15, 80),
        500 * generator.randrange(20, 120),
        generator.choice(PURPOSES),
    )


def list_questions(one: Application) -> Iterator[tuple[str, str, str, str]]:
    """Yield stratum, question, scorer and right answer."""
    first = one.name.split()[0]
    yield "amount", f"What sum does {first} ask for?", "numeric", str(one.loan)
    yield "purpose", f"What does {first} want to buy?", "contains", one.purpose.removeprefix("a ")


def main() -> None:
    """Write one candidate a line."""
    generator = random.Random(SEED)  # noqa: S311 - a choice, not a secret
    for number in range(PER_STRATUM):
        application = make_application(generator)
        for stratum, question, scorer, answer in list_questions(application):
            item = {"id": f"{stratum}-{number:03}", "stratum": stratum, "prompt": f"{application.text} {question}"}
            sys.stdout.write(json.dumps(item | {"scorer": scorer, "answers": [answer]}) + "\n")


if __name__ == "__main__":
    main()
