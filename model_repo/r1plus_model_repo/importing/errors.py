"""What goes wrong between weights and an engine folder.

    ImportingError           cannot be had, cannot be converted
    └── WeightsError         the weights themselves: file, field, what is wrong with which value, what to do

Whoever catches the first has all of them; nothing else escapes from reading a file, whatever is in it.
"""


class ImportingError(RuntimeError):
    """Weights that cannot be had or are not what they should be."""


class WeightsError(ImportingError):
    """A weights file that is not served, one line per problem: `FILE: FIELD: what is wrong; what to do`."""

    def __init__(self, file: str, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems
