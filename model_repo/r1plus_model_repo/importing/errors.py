"""Errors between weights and an engine folder.

    ImportingError           the weights cannot be fetched or converted
    └── WeightsError         the weights are invalid: file, field, what is wrong, what to do

Reading a file raises no other error, whatever the file contains.
"""


class ImportingError(RuntimeError):
    """Weights that cannot be fetched or are invalid."""


class WeightsError(ImportingError):
    """A weights file that cannot be served, one line per problem: `FILE: FIELD: what is wrong; what to do`."""

    def __init__(self, file: str, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems
