"""People before the API server, known by their certificates; what they ask is asked by HTTP as it stands in the test.

It is a dry run: nothing that is let through changes anything for the next question. Who is refused is known first: an
identity that is wrong proves nothing.
"""

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx

from devcluster.apiserver_only import ApiServer
from r1plus_operator.runtime import connection
from support.apiserver.manifests import RESOURCES, SERVICE_ACCOUNT, Json
from support.waiting import wait_until

MERGE, STRATEGIC, APPLY = (
    f"application/{kind}" for kind in ("merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the API server."""

    status: int
    text: str
    warnings: str = ""
    """Of the API server for the client: policies that warn are among them."""

    @property
    def refused(self) -> bool:
        """Nobody was let in: by RBAC or by a policy."""
        return self.status in (401, 403)

    def __str__(self) -> str:
        return f"{self.status} {self.text[:600]}"


class Person:
    """Somebody with a certificate, or nobody at all."""

    def __init__(self, name: str, http: httpx.Client) -> None:
        self.name = name
        self._http = http

    def ask(self, method: str, path: str, body: Json | None = None, *, kind: str = "", dry: bool = True) -> Answer:
        """Send one request; a dry run unless said otherwise."""
        changes = dry and method != "GET" and not path.split("?")[0].endswith(("/exec", "/attach", "/portforward"))
        where = path + (("&" if "?" in path else "?") + "dryRun=All" if changes else "")
        if kind == APPLY:
            where += "&fieldManager=test&force=true" if "?" in where else "?fieldManager=test&force=true"
        content = json.dumps(body, separators=(",", ":")) if body is not None else None
        headers = {"Content-Type": kind or (MERGE if method == "PATCH" else "application/json")}
        answer = self._http.request(method, where, content=content, headers=headers if content else {})
        return Answer(answer.status_code, _told(answer), answer.headers.get("Warning", ""))

    def do(self, method: str, path: str, body: Json | None = None, *, kind: str = "") -> Json:
        """Send a request that must be let through, and is carried out."""
        answer = self.ask(method, path, body, kind=kind, dry=False)
        assert answer.status in (200, 201, 202), f"{self.name}: {method} {path}: {answer}"
        return dict(json.loads(answer.text))

    def who(self) -> str:
        """Return this person's name as the API server sees it; empty for nobody."""
        answer = self._review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview")
        return str(json.loads(answer.text)["status"]["userInfo"]["username"]) if answer.status == 201 else ""

    def may(self, verb: str, resource: str, namespace: str, group: str = "", subresource: str = "") -> bool:
        """Return what RBAC says; policies are not asked."""
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
        spec = {"resourceAttributes": attributes | {"subresource": subresource}}
        answer = self._review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", spec=spec)
        return bool(json.loads(answer.text)["status"]["allowed"])

    def gets(self, verb: str, resource: str, namespace: str, group: str = "", subresource: str = "") -> None:
        """Wait until RBAC lets this person do it: a binding is known a moment after it was written."""
        what = f"{self.name} may {verb} {resource}{'/' if subresource else ''}{subresource} in {namespace}"
        wait_until(lambda: self.may(verb, resource, namespace, group, subresource), what)

    def _review(self, group: str, plural: str, kind: str, **fields: Json) -> Answer:
        body = {"apiVersion": f"{group}/v1", "kind": kind, **fields}
        return self.ask("POST", f"/apis/{group}/v1/{plural}", body, dry=False)


def _told(answer: httpx.Response) -> str:
    """Return the message where there is one, so that its quotes are read as they were written."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text
    failed = isinstance(body, dict) and body.get("kind") == "Status" and body.get("status") == "Failure"
    return str(body.get("message")) if failed else answer.text


@contextmanager
def person(server: ApiServer, user: str, groups: tuple[str, ...] = ()) -> Iterator[Person]:
    """`user`, in these groups."""
    tls = connection.from_kubeconfig(server.kubeconfig_for(user, groups)).tls
    with _connected(server, tls) as http:
        yield Person(user, http)


@contextmanager
def administrator(server: ApiServer) -> Iterator[Person]:
    """Who may do everything."""
    with person(server, "admin", ("system:masters",)) as made:
        yield made


def until_refused(server: ApiServer, body: Json, namespace: str, said: str) -> None:
    """Wait until admission refuses to make this object, and says so: it sees quotas and policies later than clients do."""
    path = RESOURCES[body["kind"]].path(namespace)
    with administrator(server) as admin:
        wait_until(lambda: said in admin.ask("POST", path, body).text, f"a {body['kind']} is refused: {said}")


def until_pods_are_taken(admin: Person, namespace: str) -> None:
    """Wait until pods can be made in a namespace: the controllers give it a service account some time after it is made."""
    path = SERVICE_ACCOUNT.path(namespace, "default")
    wait_until(lambda: admin.ask("GET", path).status == 200, f"{namespace} has its service account")


@contextmanager
def nobody(server: ApiServer) -> Iterator[Person]:
    """Who shows nothing."""
    with _connected(server, ssl.create_default_context(cafile=str(server.ca))) as http:
        yield Person("system:anonymous", http)


def _connected(server: ApiServer, tls: ssl.SSLContext | None) -> httpx.Client:
    return httpx.Client(base_url=server.url, verify=tls or True, timeout=120)


@contextmanager
def people(server: ApiServer, *users: str) -> Iterator[dict[str, Person]]:
    """Each of them; a service account (`system:serviceaccount:...`) in the groups that one has."""
    with ExitStack() as stack:
        yield {user: stack.enter_context(person(server, user, groups_of(user))) for user in users}


def groups_of(user: str) -> tuple[str, ...]:
    """Return the groups that the API server puts a service account into; nobody else is in any."""
    words = user.split(":")
    if words[:2] != ["system", "serviceaccount"]:
        return ()
    return ("system:serviceaccounts", f"system:serviceaccounts:{words[2]}", "system:authenticated")
