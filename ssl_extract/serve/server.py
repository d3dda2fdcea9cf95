"""The server process: socket, HTTP and shutdown."""

import ipaddress
import socket
from typing import Any

import uvicorn

from ssl_extract.errors import UserError

HEADER_BYTES = 16_384  # of a request
IDLE_SECONDS = 75  # of a connection between two requests
END_SECONDS = 30  # in which the last requests are answered after Ctrl-C or SIGTERM


def bind(host: str, port: int) -> socket.socket:
    """Opens the server's socket; port 0 takes any free port.

    Raises:
        UserError: the port is taken, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(
            f'--host={host} --port={port}: {error.strerror or error}; write another port, or '
            '--port=0 for any free one'
        ) from None


def url_of(bound: socket.socket) -> str:
    """Returns the URL of a server's socket."""
    host, port = bound.getsockname()[:2]
    return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def is_loopback(bound: socket.socket) -> bool:
    """Tells whether only this machine can reach a socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def make_server(app: Any) -> uvicorn.Server:
    """Makes the HTTP server of an application; `server.run(sockets=[socket])` starts it.

    No header, and so no token, is ever logged.
    """
    config = uvicorn.Config(
        app,
        http='h11',
        ws='none',
        lifespan='off',
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
    )
    return uvicorn.Server(config)
