"""Whether RAY_ADDRESS names a cluster: Ray itself waits minutes for what is none."""

import os
import socket

from nas.execution.resources import ResourceError

_SECONDS = 5.0
_REMEDY = (
    "set RAY_ADDRESS to the host:port of a cluster's head, or unset it to search on"
    " this machine"
)
# HTTP/2's first words, and empty settings, which a gRPC server answers with its own
# (RFC 9113, sections 3.4 and 6.5).
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HEADER_BYTES, _TYPE_AT, _SETTINGS = 9, 3, 4


def check(address: str) -> None:
    """Refuses an address at which no cluster answers, within seconds.

    Args:
      address: `host:port`, `ray://host:port`, `auto`, or `local`: always there.

    Raises:
      ResourceError: if nothing answers, or not as Ray does. One line.
    """
    if address == "local":
        return
    found = _running() if address == "auto" else address.removeprefix("ray://")
    host, _, port = found.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise ResourceError(
            f"RAY_ADDRESS must be host:port, got {address[:200]!r}; {_REMEDY}"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS) as there:
            speaks = _speaks_grpc(there)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ResourceError(
            f"no Ray cluster answers at RAY_ADDRESS {address[:200]!r}: {error};"
            f" {_REMEDY}"
        ) from None
    if not speaks:
        raise ResourceError(
            f"what answers at RAY_ADDRESS {address[:200]!r} is no Ray cluster;"
            f" {_REMEDY}"
        )


def _speaks_grpc(there: socket.socket) -> bool:
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # it answers to a handshake alone
    there.settimeout(_SECONDS)
    there.sendall(_GREETING)
    answer = b""
    while len(answer) < _HEADER_BYTES and (part := there.recv(_HEADER_BYTES)):
        answer += part
    return len(answer) >= _HEADER_BYTES and answer[_TYPE_AT] == _SETTINGS


def _running() -> str:
    """The cluster that runs on this machine."""
    from ray._private import services  # Ray takes seconds to import

    try:
        return services.canonicalize_bootstrap_address("auto") or ""
    except ConnectionError:
        raise ResourceError(
            f"no Ray cluster runs on this machine, and RAY_ADDRESS is auto; {_REMEDY}"
        ) from None
