"""How far the Job is, for whoever asks: one GET path on the port that a serving pod's monitor has."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from r1plus_contract.engine_fetch import PROGRESS_PATH, FillPhase, FillProgress
from r1plus_contract.jsonable import dumps


class Board:
    """The last word, and the server that tells it. Ends with the process."""

    def __init__(self) -> None:
        self._said = FillProgress(FillPhase.WAITING)

    def tell(self, progress: FillProgress) -> None:
        """From now on this is what is answered."""
        self._said = progress

    def serve(self, port: int, host: str = "") -> ThreadingHTTPServer:
        """Answer from now on, in a thread of its own; port 0 takes any."""
        board = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path != PROGRESS_PATH:
                    self.send_error(404)
                    return
                body = dumps(board._said).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads an access log of a Job."""

        server = ThreadingHTTPServer((host, port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server
