"""Where a server listens: addresses, ports, TLS and the token, checked before anything is started."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sait_deploy.errors import InvalidArgument, ServingError
from sait_deploy.serving.token import read_token
from sait_deploy.system.option_values import check_options

_MOST_PORTS: Final = 65535
LOCALHOST: Final = "127.0.0.1"
BACKSTOP: Final = 2
"""Serve's own time limit over that of a request, which answers first."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens.

    Attributes:
        host: an address of this machine, or ``localhost``.
        port: of HTTP.
        grpc_port: of gRPC.
        certificate: PEM file of TLS; None for none.
        key: its key's.
        token_file: holds the bearer token that requests must send; None for none.

    Raises:
        InvalidArgument: an address or port that cannot be, or an address that other machines reach without a token.
    """

    host: str = LOCALHOST
    port: int = 8000
    grpc_port: int = 8001
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        check_options(self)
        for port in (self.port, self.grpc_port):
            if not 1 <= port <= _MOST_PORTS:
                raise InvalidArgument(f"there is no port {port}", f"use 1 to {_MOST_PORTS}")
        if self.port == self.grpc_port:
            raise InvalidArgument(f"HTTP and gRPC cannot share port {self.port}", "give another --grpc-port")
        if self.token_file is None and not self.is_loopback:
            raise InvalidArgument(
                f"other machines reach {self.host}, and the server would answer anybody",
                "give a token: --token-file FILE",
            )

    @property
    def address(self) -> str:
        """The address to bind."""
        return LOCALHOST if self.host == "localhost" else self.host

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone reaches it."""
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            raise InvalidArgument(
                f"{self.host!r} is no address", "give one of this machine's, such as 127.0.0.1"
            ) from None

    @property
    def bracketed(self) -> str:
        """The address as a URL has it."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"{'http' if self.certificate is None else 'https'}://{self.bracketed}:{self.port}/"

    def http_options(self, time_limit_s: float) -> dict[str, str | int | float]:
        """Returns what Ray Serve's proxies for HTTP are told.

        Args:
            time_limit_s: of a request, which is answered before Serve's own limit.
        """
        files = {"ssl_certfile": self.certificate, "ssl_keyfile": self.key}
        given = {name: str(file) for name, file in files.items() if file is not None}
        return {"host": self.address, "port": self.port, "request_timeout_s": BACKSTOP * time_limit_s, **given}

    def resolved(self) -> Listening:
        """Returns the same with whole paths, which processes in other folders read."""
        return replace(
            self, certificate=_whole(self.certificate), key=_whole(self.key), token_file=_whole(self.token_file)
        )

    def check(self) -> None:
        """Checks that this machine can listen so: files of TLS and of the token, and that both ports can be bound now.

        Raises:
            InvalidArgument: half of a certificate, or a file that cannot be used.
            ServingError: a port cannot be bound.
        """
        read_token(self.token_file)
        if (self.certificate is None) != (self.key is None):
            raise InvalidArgument("TLS needs a certificate and its key", "give both")
        if self.certificate is not None and self.key is not None:
            _check_pair(self.certificate, self.key)
        for port in (self.port, self.grpc_port):
            family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
            with contextlib.closing(socket.socket(family)) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind((self.address, port))
                    trial.listen(1)
                except OSError as error:
                    taken = error.errno == errno.EADDRINUSE
                    what = "is in use" if taken else f"cannot be bound: {error.strerror}"
                    hint = "give another --port or --grpc-port" if taken else "give an address of this machine: --host"
                    raise ServingError(f"port {port} of {self.host} {what}", hint) from None


def _whole(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _check_pair(certificate: Path, key: Path) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"{certificate} and {key} are no certificate and its key: {error}",
            "give PEM files, the key without a password",
        ) from None
