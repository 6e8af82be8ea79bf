"""A threaded server of the standard library: every request has a thread of its own, all share one engine."""

import argparse
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from tandem import Engine


class Server(ThreadingHTTPServer):
    daemon_threads = False  # the end waits for requests that are being answered
    request_queue_size = 128

    def __init__(self, address, engine):
        super().__init__(address, Handler)
        self.engine = engine

    def service_actions(self):
        """Called by the server's main loop twice a second: a beat from another thread would hide that it hangs."""
        self.engine.beat()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        """`/decide` {"key", "document": [size, hits, age]} and `/reward` {"key", "value"}."""
        try:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/decide":
                decision = self.server.engine.decide(body["key"], body["document"])
                answer = {"action": decision.action, "version": decision.version}
            elif self.path == "/reward":
                answer = {"matched": self.server.engine.reward(body["key"], body["value"])}
            else:
                return self.send_error(404)
        except (ValueError, KeyError, TypeError) as error:
            return self.send_error(400, explain=repr(error))
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8033)
    options = parser.parse_args()
    torch.set_num_threads(1)  # of one decision; the server's threads are what runs in parallel
    engine = Engine.attach()
    with Server(("127.0.0.1", options.port), engine) as server:
        # `shutdown` waits for the loop to end, which it cannot while it runs the handler of a signal.
        stop = threading.Thread(target=server.shutdown)
        signal.signal(signal.SIGTERM, lambda *_: stop.ident or stop.start())
        engine.mark_ready()
        server.serve_forever()
    engine.close()


if __name__ == "__main__":
    main()
