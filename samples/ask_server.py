"""Starts a server for an artifact, asks it once for an image's classes, and stops it.

    python samples/ask_server.py artifacts/my-model-adaptive photo.jpg

Where Ray has no package for this Python, it says so in a line and does nothing.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import click


def free_ports() -> tuple[int, int]:
    """Returns two ports that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as grpc:
        return http.getsockname()[1], grpc.getsockname()[1]


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
def main(artifact: Path, image: Path) -> None:
    """Ask a server once."""
    if importlib.util.find_spec("ray") is None:
        click.echo("skipped: the server needs Ray, which is not installed: pip install 'sait-deploy[serve]'")
        return
    port, grpc_port = free_ports()
    command = [sys.executable, "-m", "sait_deploy", "serve", str(artifact)]
    command += ["--port", str(port), "--grpc-port", str(grpc_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                sys.exit(server.wait())
            click.echo(line.strip())
            address = f"http://127.0.0.1:{port}/v1/predict?top=3"
            with urllib.request.urlopen(urllib.request.Request(address, image.read_bytes()), timeout=60) as answer:
                click.echo(json.dumps(json.load(answer)))
        finally:
            server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
