"""An HTTP server for the progress of the Job: one GET path, on the port that a serving pod's monitor has."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from r1plus_contract.engine.engine_fetch import PROGRESS_PATH, FillPhase, FillProgress
from r1plus_contract.jsonable import dumps


class ProgressServer:
    """The latest progress and the server that reports it. It ends with the process."""

    def __init__(self) -> None:
        self._progress = FillProgress(FillPhase.WAITING)

    def update(self, progress: FillProgress) -> None:
        """Set the progress to report."""
        self._progress = progress

    def serve(self, port: int, host: str = "") -> ThreadingHTTPServer:
        """Start to answer in a new thread; port 0 takes any free port."""
        progress_server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path != PROGRESS_PATH:
                    self.send_error(404)
                    return
                body = dumps(progress_server._progress).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Write no access log."""

        server = ThreadingHTTPServer((host, port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server
