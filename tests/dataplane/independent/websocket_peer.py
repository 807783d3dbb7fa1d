"""WebSocket by the library websockets, on both sides.

  websocket_peer.py serve        prints its port, serves until standard input ends
  websocket_peer.py call PORT    prints a line of JSON for each case
"""

import contextlib
import json
import sys
import threading
import time

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

BYTES_MAX = 32 << 20
OPEN = dict(max_size=BYTES_MAX, open_timeout=10, close_timeout=10)


class Echo:
    """Sends back what comes, but for a few words that are orders."""

    def __init__(self):
        self.last_close = None

    def choose(self, connection, request):
        if request.path == "/healthz":
            return connection.respond(200, "well\n")
        if request.path == "/forbidden":
            return connection.respond(403, "no\n")
        return None

    def __call__(self, socket):
        try:
            for message in socket:
                self.react(socket, message)
        except ConnectionClosed:
            pass
        # What "last" asks for must be somebody else's end.
        if socket.request.path != "/last":
            self.last_close = [socket.close_code, socket.close_reason]

    def react(self, socket, message):
        if message == "close":
            socket.close(4001, "as you wish")
        elif message == "ping me":
            socket.send(f"heard: {socket.ping(b'endpoint').wait(10)}")
        elif message == "last":
            socket.send(json.dumps(self.last_close))
        else:
            socket.send(message)


def endpoint():
    echo = Echo()
    with serve(
        echo,
        "127.0.0.1",
        0,
        process_request=echo.choose,
        select_subprotocol=lambda _, offered: "chat" if "chat" in offered else None,
        max_size=BYTES_MAX,
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.socket.getsockname()[1], flush=True)
        sys.stdin.read()
        server.shutdown()


class Cases:
    """All that a client does; each method without an underscore is a case."""

    def __init__(self, port):
        self._url = f"ws://127.0.0.1:{port}"

    def _open(self, path="/", **options):
        return connect(self._url + path, **(OPEN | options))

    def _echoed(self, message, **options):
        with self._open(**options) as socket:
            socket.send(message)
            same(socket.recv(timeout=20), message)

    def text(self):
        self._echoed("")
        self._echoed("h\u00e4llo \u2639 \U0001f608")

    def binary(self):
        self._echoed(bytes(range(256)))

    def lengths_around_each_form(self):
        with self._open(compression=None) as socket:
            for length in [0, 125, 126, 127, 65_535, 65_536, 65_537]:
                socket.send(bytes(length))
                same(socket.recv(timeout=20), bytes(length))

    def frames_of_megabytes(self):
        self._echoed(bytes(range(256)) * (32 << 10), compression=None)
        self._echoed("0123456789abcdef" * (512 << 10))

    def fragments(self):
        with self._open() as socket:
            socket.send(piece for piece in ["one ", "two ", "", "three"])
            same(socket.recv(timeout=20), "one two three")

    def compression_is_the_endpoint_s(self):
        with self._open() as socket:
            same([one.name for one in socket.protocol.extensions], ["permessage-deflate"])

    def subprotocol_is_the_endpoint_s(self):
        with self._open(subprotocols=["other", "chat"]) as socket:
            same(socket.subprotocol, "chat")

    def ping_of_the_client(self):
        with self._open() as socket:
            assert socket.ping(b"client").wait(10), "no pong"

    def ping_of_the_endpoint(self):
        with self._open() as socket:
            socket.send("ping me")
            same(socket.recv(timeout=20), "heard: True")

    def close_code_of_the_endpoint(self):
        with self._open() as socket:
            socket.send("close")
            try:
                got = socket.recv(timeout=20)
            except ConnectionClosed as end:
                same((end.rcvd.code, end.rcvd.reason), (4001, "as you wish"))
                return
        raise AssertionError(f"no end but {got}")

    def close_code_of_the_client(self):
        with self._open() as socket:
            socket.close(4002, "enough")
        with self._open("/last") as socket:
            for _ in range(100):
                socket.send("last")
                told = socket.recv(timeout=20)
                if told == '[4002, "enough"]':
                    return
                time.sleep(0.05)
        raise AssertionError(f"the endpoint heard {told}")

    def many_at_once(self):
        with contextlib.ExitStack() as all_of_them:
            sockets = [all_of_them.enter_context(self._open()) for _ in range(32)]
            for number, socket in enumerate(sockets):
                socket.send(f"{number} " * 5_000)
            for number, socket in enumerate(sockets):
                same(socket.recv(timeout=20), f"{number} " * 5_000)

    def refused_by_the_endpoint(self):
        try:
            with self._open("/forbidden"):
                pass
        except InvalidStatus as refusal:
            same((refusal.response.status_code, bytes(refusal.response.body)), (403, b"no\n"))
            return
        raise AssertionError("not refused")


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"{str(got)[:100]} instead of {str(wanted)[:100]}")


def run(cases):
    for name in [name for name in vars(Cases) if not name.startswith("_")]:
        try:
            getattr(cases, name)()
            error = None
        except Exception as failure:  # whatever it is, it is this case's end
            error = f"{type(failure).__name__}: {failure}"
        print(json.dumps({"case": name, "error": error}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            endpoint()
        case ["call", port]:
            run(Cases(port))
