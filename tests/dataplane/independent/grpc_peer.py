"""gRPC by grpcio, on both sides. Messages are bytes, so that nothing need be generated.

  grpc_peer.py serve               prints its port, serves until standard input ends
  grpc_peer.py call PORT [CA.pem]  prints a line of JSON for each case; over TLS if there is an authority
  grpc_peer.py last PORT           what changes the endpoint: it says that it serves no more
  grpc_peer.py gone PORT           what a caller hears where no endpoint is
"""

import json
import queue
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

CART = "/shop.Cart/"
NAME_IN_CERTIFICATE = "a.example"
MESSAGE_BYTES_MAX = 8 << 20
DETAILS = "100 % no, \u2639 and\ttab"


class Cart(grpc.GenericRpcHandler):
    """One service with a call of each kind, and calls that fail or wait."""

    def __init__(self, statuses):
        self.statuses = statuses
        self.left = []  # seconds that callers gave, of calls that ended before their answer
        self.kinds = {
            "Say": (grpc.unary_unary_rpc_method_handler, self.say),
            "Collect": (grpc.stream_unary_rpc_method_handler, self.collect),
            "Spread": (grpc.unary_stream_rpc_method_handler, self.spread),
            "Talk": (grpc.stream_stream_rpc_method_handler, self.talk),
            "Fail": (grpc.unary_unary_rpc_method_handler, self.fail),
            "Wait": (grpc.unary_unary_rpc_method_handler, self.wait),
            "Left": (grpc.unary_unary_rpc_method_handler, lambda _, context: json.dumps(self.left).encode()),
            "Close": (grpc.unary_unary_rpc_method_handler, self.close),
        }

    def service(self, details):
        package, _, method = details.method.rpartition("/")
        if package + "/" == CART and method in self.kinds:
            make, act = self.kinds[method]
            return make(act)
        return None

    def say(self, said, context):
        given = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-first", given.get("x-asked", "nothing"))])
        context.set_trailing_metadata([("x-last-bin", given.get("x-asked-bin", b""))])
        return said[::-1]

    def collect(self, pieces, context):
        sizes = [len(piece) for piece in pieces]
        return json.dumps(sizes).encode()

    def spread(self, sizes, context):
        for size in json.loads(sizes):
            yield bytes(size)

    def talk(self, pieces, context):
        for piece in pieces:
            yield piece.upper()

    def fail(self, _, context):
        context.set_trailing_metadata([("x-why", "asked for")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, DETAILS)

    def wait(self, _, context):
        gave, ended = context.time_remaining(), threading.Event()
        context.add_callback(ended.set)
        if ended.wait(20):
            self.left.append(gave)
        return b""

    def close(self, _, context):
        self.statuses.set("shop.Cart", health_pb2.HealthCheckResponse.NOT_SERVING)
        return b""


def serve():
    statuses = health.HealthServicer()
    statuses.set("shop.Cart", health_pb2.HealthCheckResponse.SERVING)
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    server.add_generic_rpc_handlers([Cart(statuses)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0).wait()


class Cases:
    """All that a client does; each method without an underscore is a case."""

    def __init__(self, port, authority=None):
        self._target = f"127.0.0.1:{port}"
        options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        if authority is None:
            self._channel = grpc.insecure_channel(self._target, options)
        else:
            with open(authority, "rb") as file:
                trust = grpc.ssl_channel_credentials(file.read())
            options.append(("grpc.ssl_target_name_override", NAME_IN_CERTIFICATE))
            self._channel = grpc.secure_channel(self._target, trust, options)
        self._say = self._channel.unary_unary(CART + "Say")
        self._collect = self._channel.stream_unary(CART + "Collect")
        self._spread = self._channel.unary_stream(CART + "Spread")
        self._talk = self._channel.stream_stream(CART + "Talk")

    def unary(self):
        same(self._say(b"abc", timeout=10), b"cba")
        same(self._say(b"", timeout=10), b"")

    def unary_of_megabytes(self):
        same(self._say(b"ab" * (2 << 20), timeout=20), b"ba" * (2 << 20))

    def client_stream(self):
        sizes = [0, 1, 16 << 10, 100_000, 1 << 20]
        same(json.loads(self._collect(map(bytes, sizes), timeout=20)), sizes)
        same(json.loads(self._collect(iter([]), timeout=10)), [])

    def server_stream(self):
        sizes = [1 << 20, 0, 1, 100_000]
        answers = self._spread(json.dumps(sizes).encode(), timeout=20)
        same([len(answer) for answer in answers], sizes)
        same(list(self._spread(b"[]", timeout=10)), [])

    def both_streams_in_turns(self):
        pieces = queue.Queue()
        answers = self._talk(iter(pieces.get, None), timeout=20)
        for number in range(100):
            pieces.put(b"word %d" % number)
            same(next(answers), b"WORD %d" % number)
        pieces.put(None)
        same(list(answers), [])
        same(answers.code(), grpc.StatusCode.OK)

    def both_streams_at_once(self):
        pieces = [bytes([97 + number % 26]) * 50_000 for number in range(100)]
        same(list(self._talk(iter(pieces), timeout=20)), [piece.upper() for piece in pieces])

    def metadata(self):
        fields = [("x-asked", "a, b"), ("x-asked-bin", bytes(range(256)))]
        _, call = self._say.with_call(b"", metadata=fields, timeout=10)
        same(dict(call.initial_metadata()).get("x-first"), "a, b")
        same(dict(call.trailing_metadata()).get("x-last-bin"), bytes(range(256)))

    def status_and_details(self):
        error = refused(lambda: self._channel.unary_unary(CART + "Fail")(b"", timeout=10))
        same((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, DETAILS))
        same(dict(error.trailing_metadata()).get("x-why"), "asked for")

    def unknown_method(self):
        error = refused(lambda: self._channel.unary_unary(CART + "No")(b"", timeout=10))
        same(error.code(), grpc.StatusCode.UNIMPLEMENTED)

    def deadline(self):
        began = time.monotonic()
        error = refused(lambda: self._channel.unary_unary(CART + "Wait")(b"", timeout=0.5))
        same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        assert time.monotonic() - began < 5, "it came late"
        self._await_left(lambda gave: 0 < gave < 1)

    def cancelled(self):
        call = self._channel.unary_unary(CART + "Wait").future(b"", timeout=15)
        time.sleep(0.2)
        call.cancel()
        same(call.code(), grpc.StatusCode.CANCELLED)
        self._await_left(lambda gave: 10 < gave < 16)

    def cancelled_in_the_middle(self):
        pieces = queue.Queue()
        answers = self._talk(iter(pieces.get, None), timeout=15)
        pieces.put(b"a")
        same(next(answers), b"A")
        answers.cancel()
        same(refused(lambda: next(answers)).code(), grpc.StatusCode.CANCELLED)
        pieces.put(None)

    def many_at_once(self):
        said = [b"%d-" % number * 20_000 for number in range(64)]
        calls = [self._say.future(one, timeout=30) for one in said]
        same([call.result() for call in calls], [one[::-1] for one in said])

    def health_check(self):
        stub = health_pb2_grpc.HealthStub(self._channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="shop.Cart"), timeout=10)
        same(answer.status, health_pb2.HealthCheckResponse.SERVING)
        unknown = health_pb2.HealthCheckRequest(service="shop.Other")
        same(refused(lambda: stub.Check(unknown, timeout=10)).code(), grpc.StatusCode.NOT_FOUND)

    def _await_left(self, is_it):
        """The endpoint has heard that nobody waits any more, and knew the deadline."""
        left = self._channel.unary_unary(CART + "Left")
        for _ in range(100):
            if any(map(is_it, json.loads(left(b"", timeout=10)))):
                return
            time.sleep(0.05)
        raise AssertionError(f"the endpoint has not heard: {left(b'', timeout=10)}")


class LastCases(Cases):
    """What changes the endpoint."""

    def health_watch(self):
        stub = health_pb2_grpc.HealthStub(self._channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="shop.Cart"), timeout=15)
        same(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        self._channel.unary_unary(CART + "Close")(b"", timeout=10)
        same(next(watch).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        watch.cancel()


class Gone(Cases):
    """What a caller hears where no endpoint is."""

    def unavailable(self):
        error = refused(lambda: self._say(b"", timeout=10))
        same(error.code(), grpc.StatusCode.UNAVAILABLE)


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"{str(got)[:100]} instead of {str(wanted)[:100]}")


def refused(call):
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"no error but {str(answer)[:100]}")


def run(cases, names):
    for name in names:
        try:
            getattr(cases, name)()
            error = None
        except Exception as failure:  # whatever it is, it is this case's end
            error = f"{type(failure).__name__}: {failure}"
        print(json.dumps({"case": name, "error": error}), flush=True)


def own(kind):
    return [name for name in vars(kind) if not name.startswith("_")]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["call", port, *authority]:
            run(Cases(port, *authority), own(Cases))
        case ["last", port]:
            run(LastCases(port), own(LastCases))
        case ["gone", port]:
            run(Gone(port), own(Gone))
