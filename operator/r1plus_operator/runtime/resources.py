"""Kinds as the client addresses them: where their objects live in the API server's URL space."""

import re
from dataclasses import dataclass
from urllib.parse import quote

_PLAIN = re.compile(r"[A-Za-z0-9._~-]+").fullmatch
"""Words that quoting leaves unchanged: nearly every name, and quoting takes ten times longer than this match."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API server serves it, for example `Resource("apps", "v1", "deployments", "Deployment")`.

    `group` is empty for the core group. No discovery: a controller knows its kinds, and one request less is one
    possible failure less.
    """

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What goes into an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """As kubectl writes it: `deployments.apps`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the URL path of the collection, or of one object, or of one object's subresource.

        Raises:
            ValueError: a namespace for a cluster-scoped kind, or none for one object of a namespaced kind.
        """
        if namespace and not self.is_namespaced:
            raise ValueError(f"namespace: {namespace!r} given, but {self.name} is cluster-scoped; leave it out")
        if name and self.is_namespaced and not namespace:
            raise ValueError(f"namespace: absent for {self.kind} {name!r}, which is namespaced; give one")
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace:
            parts += ["namespaces", _quote(namespace)]
        parts.append(self.plural)
        if name:
            parts.append(_quote(name))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def _quote(word: str) -> str:
    return word if _PLAIN(word) else quote(word, safe="")
