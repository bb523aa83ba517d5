"""README's picture shows what Prometheus says and nothing else; without data there is none."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract import metrics
from support.dashboards import picture
from support.dashboards.asking import AskingError, Chosen, Window, ask, rules
from support.dashboards.picture import answers, draw

CHOSEN = Chosen("team", "credit")
WINDOW = Window(0.0, 600.0, 60.0)
Series = list[dict[str, Any]]


def one(revision: str, *values: str, start: int = 0) -> dict[str, Any]:
    """A series as Prometheus answers it, a value a minute."""
    labels = {"revision": revision} if revision else {}
    return {"metric": labels, "values": [[start + 60 * i, value] for i, value in enumerate(values)]}


SAID: dict[str, Series] = {
    metrics.ACCURACY_RATIO: [one("credit-1", "1", "0.99", "NaN"), one("credit-2", "0.62", "0.62", start=120)],
    metrics.ACCURACY_LOWER_BOUND_RATIO: [one("credit-1", "0.95", "0.94"), one("credit-2", "0.5", start=120)],
    metrics.ACCURACY_UPPER_BOUND_RATIO: [one("credit-1", "1", "1")],
    metrics.ACCURACY_THRESHOLD_RATIO: [one("", "0.98", "0.98", "0.98")],
}


@contextmanager
def prometheus(said: dict[str, Series], *, refuse: bool = False) -> Iterator[str]:
    """Answers each query by the metric that it names, only for the deployment chosen."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query).get("query", [""])[0]
            mine = 'namespace="team",deployment="credit"' in query
            found = [s for name, many in said.items() if f"({name}{{" in query and mine for s in many]
            body = {"status": "success", "data": {"result": found, "groups": [{"rules": [{"name": "A"}]}]}}
            text = json.dumps({"status": "error", "error": "parse error"} if refuse else body).encode()
            self.send_response(400 if refuse else 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_words: Any) -> None:
            """Not into the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_lines_are_what_prometheus_said() -> None:
    with prometheus(SAID) as url:
        (axes,) = draw(answers(url, CHOSEN, WINDOW), CHOSEN).axes
    drawn = {str(line.get_label()): [tuple(map(float, point)) for point in line.get_xydata()] for line in axes.lines}
    assert drawn == {
        "credit-1": [(0, 1), (1, 0.99)],
        "credit-2": [(2, 0.62), (3, 0.62)],
        "threshold": [(0, 0.98), (1, 0.98), (2, 0.98)],
    }


def test_a_band_is_drawn_only_where_both_bounds_are_known() -> None:
    with prometheus(SAID) as url:
        (axes,) = draw(answers(url, CHOSEN, WINDOW), CHOSEN).axes
    sizes = [sum(len(path.vertices) for path in band.get_paths()) for band in axes.collections]
    assert [size > 0 for size in sizes] == [True, False]


def test_what_was_counted_after_an_alarm_is_one_mark() -> None:
    said = SAID | {metrics.CONFIRMED_RATIO: [one("credit-1", "0.91", "0.91", start=60)]}
    with prometheus(said) as url:
        (axes,) = draw(answers(url, CHOSEN, WINDOW), CHOSEN).axes
    (mark,) = [line for line in axes.lines if "alarm" in str(line.get_label())]
    assert [tuple(map(float, point)) for point in mark.get_xydata()] == [(1, 0.91)]


def test_the_picture_is_written_and_the_same_data_make_the_same(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    with prometheus(SAID) as url:
        for file in files:
            words = [f"--prometheus={url}", "--namespace=team", "--deployment=credit", f"--output={file}"]
            assert picture.main(words) == 0
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(b"\x89PNG")
    assert first == second


@pytest.mark.parametrize("said", [{}, {metrics.ACCURACY_RATIO: [one("credit-1", "NaN")]}], ids=["none", "only NaN"])
def test_without_data_there_is_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: dict[str, Series]
) -> None:
    file = tmp_path / "a.png"
    with prometheus(said) as url:
        words = [f"--prometheus={url}", "--namespace=team", "--deployment=credit", f"--output={file}"]
        assert picture.main(words) == 1
    assert "knows no accuracy of team/credit" in capsys.readouterr().err
    assert not file.exists()


def test_another_deployments_accuracy_is_not_shown() -> None:
    with prometheus(SAID) as url, pytest.raises(AskingError, match="team/debit"):
        answers(url, Chosen("team", "debit"), WINDOW)


def test_a_refused_query_is_told_in_prometheus_words() -> None:
    with prometheus({}, refuse=True) as url, pytest.raises(AskingError, match=r"400 .*parse error"):
        ask(url, "up", WINDOW)


def test_who_does_not_answer_is_named() -> None:
    with prometheus({}) as url:
        pass
    with pytest.raises(AskingError, match=url):
        ask(url, "up", WINDOW)


def test_rules_are_listed_without_their_groups() -> None:
    with prometheus({}) as url:
        assert rules(url) == [{"name": "A"}]


def test_a_variable_that_nobody_fills_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\$node"):
        CHOSEN.fill('up{namespace="$namespace",node="$node"}')
