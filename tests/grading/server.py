"""Chat API on this machine with replies chosen by a test."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Api(ThreadingHTTPServer):
    """Server that stores requests and replies with `reply(request)`: a text, or (status, body) sent unchanged.

    An iterator of bytes is sent as it is, from the status line on, until it or the connection ends.
    """

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.requests, self.keys = reply, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # the client has stopped waiting


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers["Authorization"])
        reply = self.server.reply(request)
        if isinstance(reply, str):
            reply = 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]})
        if isinstance(reply, Iterator):
            self.wfile.writelines(reply)
            self.close_connection = True
            return
        status, body = reply
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@contextmanager
def serving(reply):
    """Run a server in a thread while the block runs."""
    api = Api(reply)
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.shutdown()
        thread.join()
        api.server_close()


def data_of(request):
    """Return the data of a request."""
    return json.loads(request["messages"][1]["content"])
