"""``sait-deploy serve``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sait_deploy.artifacts.folder import Workspace
from sait_deploy.cli._command import Command
from sait_deploy.cli._lines import say
from sait_deploy.cli._options import (
    artifacts_argument,
    consent_options,
    device_option,
    json_option,
    listed,
    precision_option,
    replicas_option,
    runtime_option,
    threads_option,
    token_budget_option,
    workspace_option,
)
from sait_deploy.cli._render import progress
from sait_deploy.engine.trust import granted
from sait_deploy.serving.cluster import write_configuration
from sait_deploy.serving.listening import Listening
from sait_deploy.serving.local import ServeOptions, serve, wait_for_end
from sait_deploy.serving.options import ModelsOptions


@click.command(cls=Command, example="sait-deploy serve --port 8000", renamed={"--batch-images": "--batch"})
@artifacts_argument
@click.option("--point", metavar="NAME", help="Point of requests that name none.  [default: an artifact's first]")
@click.option(
    "--points",
    multiple=True,
    metavar="NAME,…",
    help="Points from dear to cheap, among which the load chooses for requests that name none.",
)
@click.option(
    "--target-p99", type=float, default=500, show_default=True, metavar="MS", help="Latency that --points keeps."
)
@click.option("--degrade", is_flag=True, help="Let --points hold some that tune has not held to a limit.")
@runtime_option
@precision_option
@device_option
@threads_option
@token_budget_option("those of eight whole images")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images of a batch at most.  [default: as many as the token budget allows]",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=int, default=8000, show_default=True, metavar="N", help="Port of HTTP.")
@click.option("--grpc-port", type=int, metavar="N", help="Port of gRPC.  [default: the next one]")
@replicas_option("Processes that run all artifacts.")
@click.option("--queue", type=int, default=256, show_default=True, metavar="N", help="Images that may wait in each.")
@click.option(
    "--time-limit", type=float, default=30, show_default=True, metavar="S", help="Seconds until a request is given up."
)
@click.option("--max-body", type=int, default=64, show_default=True, metavar="MIB", help="Size of a request at most.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the bearer token that requests must send; needed where other machines reach the server.",
)
@click.option("--certificate", type=click.Path(path_type=Path), metavar="FILE", help="Certificate of TLS, PEM.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, PEM.")
@click.option("--address", metavar="ADDRESS", help="Join this Ray cluster.  [default: a Ray of its own, on loopback]")
@click.option(
    "--write-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a configuration for serve deploy and KubeRay, and serve nothing.",
)
@workspace_option
@json_option
@consent_options
def command(**given: Any) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    Serves the Open Inference Protocol over HTTP and gRPC, POST /v1/predict for images, /metrics, and a page at / that
    shows which tokens of a picture are kept. Without ARTIFACTS, the newest of the last export is served.
    """
    artifacts = given["artifacts"] or (Workspace(given["workspace"]).last_export()[-1],)
    models = ModelsOptions(
        artifacts=artifacts,
        runtime=given["runtime"],
        precision=given["precision"],
        device=given["device"],
        threads=given["threads"],
        point=given["point"],
        points=listed(given["points"]),
        target_p99_ms=given["target_p99"],
        degrade=given["degrade"],
        token_budget=given["token_budget"],
        batch_images=given["batch"],
        queue=given["queue"],
        time_limit_s=given["time_limit"],
        max_body_mib=given["max_body"],
        consent=granted(),
    )
    next_port = given["port"] + 1 if given["grpc_port"] is None else given["grpc_port"]
    listening = Listening(
        given["host"], given["port"], next_port, given["certificate"], given["key"], given["token_file"]
    )
    options = ServeOptions(models, listening, given["replicas"], given["address"])
    if given["write_config"] is not None:
        write_configuration(options, given["write_config"])
        progress(f"configuration is in {given['write_config']}: serve deploy {given['write_config']}")
        return
    with serve(options, progress):
        if given["as_json"]:
            click.echo(json.dumps({"url": listening.url, "grpc_port": listening.grpc_port}))
        else:
            click.echo(f"serving at {listening.url}, gRPC at port {listening.grpc_port}")
            if listening.token_file is None and listening.certificate is None:
                say(f"next: curl --data-binary @photo.jpg '{listening.url}v1/predict?top=3', or Ctrl-C to end")
        wait_for_end()
