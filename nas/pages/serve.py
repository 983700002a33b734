"""A page on this machine alone that follows what it shows.

Starlette and uvicorn: two small libraries that many projects keep well. Against the
standard library's server they bring what must not be made at home: the check of the
Host header, without which any web site could read the page through a name of its own
that it points at 127.0.0.1 (DNS rebinding), compression, and an orderly end.

A reader that stalls holds a place among `_MAX_CONNECTIONS` for half a minute, and of
what it was sent some 100 KB: all readers share one copy of the page.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from nas.pages import page
from nas.pages.page import View

_ADDRESS = "127.0.0.1"
_NUM_PORTS = 2**16
# Of every answer, those included that uvicorn gives by itself. The page's own policy,
# which says what may run, is in the page: it holds for the file as well.
_HEADERS = [
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]
_MAX_REQUESTS = 16  # at a time; a browser makes six at most
_MAX_CONNECTIONS = 32
_PATIENCE_SECONDS = 30.0  # with a connection on which nothing moves
_LEAVE_SECONDS = 1.0  # that readers have after Ctrl-C
_CHUNK_BYTES = 2**16


class Source(Protocol):
    """Something that changes, and what there is to see of it.

    Both methods may raise ValueError or OSError, of one line that the page shows.
    """

    def version(self) -> str:
        """Looks for what is new; returns a name for the state, of [0-9-] alone."""
        ...

    def view(self) -> View:
        """Returns what there is to see, as of the last `version`."""
        ...


def application(source: Source) -> Starlette:
    """Returns the server's two addresses: the page, and the data that it asks for."""
    looking = threading.Lock()  # a source is read by one request at a time
    made: dict[str, tuple[str, bytes]] = {}  # by address: of which version, and what

    def answer(kind: str, media_type: str, seen: str | None) -> Response:
        try:
            with looking:
                version = source.version()
                if seen == version:
                    return Response(status_code=204)
                if kind not in made or made[kind][0] != version:
                    made[kind] = version, _make(kind, source.view(), version)
                body = made[kind][1]
        except (ValueError, OSError) as error:
            return PlainTextResponse(" ".join(str(error).split()), status_code=503)
        return StreamingResponse(_chunks(body), media_type=media_type)

    def whole(request: Request) -> Response:
        del request
        return answer("page", "text/html", None)

    def data(request: Request) -> Response:
        seen = request.query_params.get("seen")
        return answer("data", "application/json", seen)

    return Starlette(
        routes=[Route("/", whole), Route("/view.json", data)],
        middleware=[
            Middleware(
                TrustedHostMiddleware,
                allowed_hosts=[_ADDRESS, "localhost"],
                www_redirect=False,
            ),
            Middleware(GZipMiddleware, compresslevel=3),
        ],
    )


def _make(kind: str, view: View, version: str) -> bytes:
    if kind == "page":
        return page.interactive(view, version=version, live=True).encode()
    return view.data(version).encode()


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    """In pieces, of which the next is only made when the last is nearly sent."""
    for start in range(0, len(body), _CHUNK_BYTES):
        yield body[start : start + _CHUNK_BYTES]


class _Connection(H11Protocol):
    """A connection that neither stalls for long nor is one too many.

    uvicorn's own limits leave out connections that ask for nothing, and readers that
    do not read.
    """

    _moved = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn's
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            transport.abort()
        else:
            self._look(last=-1)

    def data_received(self, data: bytes) -> None:
        self._moved += 1
        super().data_received(data)

    def resume_writing(self) -> None:
        self._moved += 1
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        # The only answer to which uvicorn does not add the headers.
        del msg
        lines = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS)
        answer = f"HTTP/1.1 400 Bad Request\r\n{lines}Connection: close\r\n\r\n"
        self.transport.write(answer.encode())
        self.transport.close()

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_LEAVE_SECONDS, self.transport.abort)

    def _look(self, last: int) -> None:
        """Ends the connection if nothing has moved, and the server is not at work."""
        if self not in self.connections:
            return
        # None until the first request, whatever uvicorn's annotation says.
        served = self.cycle is not None  # pyright: ignore[reportUnnecessaryComparison]
        at_work = served and not self.cycle.response_started
        if self._moved == last and not at_work:
            self.transport.abort()
            return
        self.loop.call_later(_PATIENCE_SECONDS / 2, self._look, self._moved)


def listen(port: int) -> socket.socket:
    """Takes a port of 127.0.0.1; any free one for 0.

    Raises:
      ValueError: if there is no such port, or it is taken. One line.
    """
    if not 0 <= port < _NUM_PORTS:
        raise ValueError(f"--port must be in [0, {_NUM_PORTS}), got {port}")
    try:
        return socket.create_server((_ADDRESS, port))
    except OSError as error:
        raise ValueError(
            f"--port must be free, got {port}: {error.strerror}; name another, or 0 for"
            " any that is"
        ) from None


def run(source: Source, listening: socket.socket) -> None:
    """Answers until Ctrl-C."""
    config = uvicorn.Config(
        application(source),
        http=_Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="error",
        headers=_HEADERS,
        server_header=False,
        limit_concurrency=_MAX_REQUESTS,
        backlog=_MAX_REQUESTS,  # as many are taken before one too many is let go
        timeout_graceful_shutdown=round(3 * _LEAVE_SECONDS),
    )
    # uvicorn raises it again once it has closed.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
