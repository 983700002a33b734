"""A RAY_ADDRESS that names no cluster is refused within seconds."""

import socket
import threading
import time

import pytest

from nas.execution import cluster_address
from nas.execution.resources import ResourceError


def refusal(address):
    start = time.monotonic()
    with pytest.raises(
        ResourceError, match="unset it to search on this machine"
    ) as why:
        cluster_address.check(address)
    assert time.monotonic() - start < 20.0
    assert "\n" not in str(why.value)
    return str(why.value)


@pytest.fixture
def answering():
    """Starts a server on localhost that answers one connection with these bytes."""
    servers = []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "address",
    ["nonsense", "host", ":6379", "host:", "host:x", "host:-1", "ray://", "host:٣"],
)
def test_what_is_no_address_is_refused(address):
    assert "must be host:port" in refusal(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999999", "x" * 70 + ":1"],
)
def test_where_nobody_answers_there_is_no_cluster(address):
    assert "no Ray cluster answers" in refusal(address)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0"]
)
def test_another_server_is_no_cluster(answering, answer):
    assert "is no Ray cluster" in refusal(answering(answer))


def test_a_server_that_speaks_grpc_may_be_one(answering):
    # SETTINGS, of length 0, on stream 0: RFC 9113, section 4.1.
    cluster_address.check(answering(bytes.fromhex("000000 04 00 00000000")))


def test_this_machine_needs_no_cluster():
    cluster_address.check("local")
