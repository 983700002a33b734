"""A page on this machine alone that follows what it shows.

Starlette and uvicorn: two small libraries that many projects keep well. Against the
standard library's server they bring what must not be made at home: the check of the
Host header, without which any web site could read the page through a name of its own
that it points at 127.0.0.1 (DNS rebinding), compression, and an orderly end.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from nas import page
from nas.page import View

_ADDRESS = "127.0.0.1"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


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

    def answer(make: Callable[[], Response]) -> Response:
        try:
            with looking:
                response = make()
        except (ValueError, OSError) as error:
            response = PlainTextResponse(" ".join(str(error).split()), status_code=503)
        response.headers.update(_HEADERS)
        return response

    def whole(request: Request) -> Response:
        del request

        def make() -> Response:
            version = source.version()
            text = page.interactive(source.view(), version=version, live=True)
            return HTMLResponse(text)

        return answer(make)

    def data(request: Request) -> Response:
        def make() -> Response:
            version = source.version()
            if request.query_params.get("seen") == version:
                return Response(status_code=204)
            text = source.view().data(version)
            return Response(text, media_type="application/json")

        return answer(make)

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


def listen(port: int) -> socket.socket:
    """Takes a port of 127.0.0.1; any free one for 0.

    Raises:
      ValueError: if there is no such port, or it is taken. One line.
    """
    try:
        return socket.create_server((_ADDRESS, port))
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--port must be a free port of this machine, got {port}: {error}; name "
            "another, or 0 for any"
        ) from None


def run(source: Source, listening: socket.socket) -> None:
    """Answers until Ctrl-C."""
    config = uvicorn.Config(application(source), log_level="warning", lifespan="off")
    # uvicorn raises it again once it has closed.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
