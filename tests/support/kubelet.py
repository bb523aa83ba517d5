"""What a kubelet makes of a container's command before its runtime gets it."""

import re
from collections.abc import Mapping
from typing import Final

_REFERENCE: Final = re.compile(r"\$(\$|\(([^)]*)\))")


def expand(word: str, environment: Mapping[str, str]) -> str:
    """Return a word of `command` or `args` as the container gets it (kubernetes, third_party/.../expansion/expand.go).

    `$$` becomes `$`, and `$(NAME)` the value of a variable of the container; what names none stays as it is.
    """
    return _REFERENCE.sub(lambda match: "$" if match[1] == "$" else environment.get(match[2], match[0]), word)
