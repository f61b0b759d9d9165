"""``sait-deploy serve``: what cannot be served is refused at once, before Ray starts; and a cluster's configuration."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.errors import InvalidArgument
from tests.cli.calls import Outcome, Sait, child_environment
from tests.exported import TinyExport, copied
from tests.test_imports import BLOCKED


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


@pytest.fixture(autouse=True)
def _ray() -> None:
    pytest.importorskip("starlette", reason="Ray has no wheel here")


def refused(outcome: Outcome, code: int, what: str, hint: str) -> None:
    error, told = [line for line in outcome.err.splitlines() if not line.startswith("- ")]
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert re.search(what, error), error
    assert re.search(hint, told), told


def test_what_cannot_be_served_says_why(
    sait: Sait, tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path, taken: int
) -> None:
    adaptive, dense = tiny_adaptive.path, tiny.dense.path
    refused(sait("serve", tmp_path / "none"), 5, "does not exist", "sait-deploy export")
    refused(sait("serve"), 5, "no export|nothing", "sait-deploy export")
    refused(sait("serve", dense, "--port", taken), 13, f"port {taken} of 127.0.0.1 is in use", "--port")
    refused(sait("serve", dense, "--grpc-port", taken), 13, f"port {taken} of 127.0.0.1 is in use", "--grpc-port")
    refused(sait("serve", dense, "--port", "0"), 2, "no port 0", "1 to 65535")
    refused(sait("serve", dense, "--host", "0.0.0.0"), 2, "other machines reach 0.0.0.0", "--token-file")
    refused(sait("serve", dense, "--host", "example"), 2, "'example' is no address", "127.0.0.1")
    refused(
        sait("serve", dense, "--host", "192.0.2.77", "--token-file", _token(tmp_path)), 13, "cannot be bound", "--host"
    )
    refused(sait("serve", dense, "--token-file", tmp_path / "none"), 2, "cannot be read", "openssl")
    refused(sait("serve", dense, "--certificate", dense), 2, "a certificate and its key", "both")
    refused(sait("serve", dense, "--certificate", dense, "--key", dense), 2, "no certificate and its key", "PEM")
    refused(sait("serve", dense, dense), 2, "two artifacts are called", "rename")
    refused(sait("serve", dense, "--runtime", "onnx"), 2, "unknown runtime 'onnx'", "onnxruntime")
    refused(sait("serve", dense, "--replicas", "0"), 2, "0 replicas", "1 to 1000")
    refused(sait("serve", dense, "--time-limit", "0"), 2, "time limit cannot be 0", "above 0")
    refused(sait("serve", dense, "--point", "fast"), 2, "operating point is fixed", "--mass")
    refused(sait("serve", adaptive, "--point", "fats"), 2, "no point 'fats'", "mass0.6, fast, wide")
    refused(sait("serve", adaptive, "--points", "fast"), 2, "cannot choose among fast", "two different points")
    refused(sait("serve", adaptive, "--points", "fast,wide", "--degrade"), 2, "no less work", "from dear to cheap")
    refused(sait("serve", adaptive, "--points", "wide,fast"), 2, "'fast' .* not tuned", "--degrade")
    refused(sait("serve", adaptive, "--points", "a,b", "--point", "a"), 2, "exclude each other", "one of them")


def _token(folder: Path) -> Path:
    (folder / "token").write_text("s3cret\n")
    return folder / "token"


def test_an_artifact_that_its_runtime_cannot_load_has_the_runtimes_own_error(
    sait: Sait, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    copy = copied(tiny_adaptive, tmp_path)
    copy.model_path.write_bytes(copy.model_path.read_bytes()[:-9])
    refused(sait("serve", copy.path), 5, "SHA-256", "export again")
    refused(sait("serve", tiny_adaptive.path, "--runtime", "tensorrt"), 3, "tensorrt|TensorRT", "install|build")


def test_without_ray_it_says_how_to_get_it(tiny: TinyExport) -> None:
    code = BLOCKED.replace('{"torch"', '{"ray", "torch"') + "\nfrom sait_deploy.cli import run\nrun()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(tiny.dense.path)],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    refused(
        Outcome(done.returncode, done.stdout, done.stderr), 3, r"serving needs ray\[serve\]", r"sait-deploy\[serve\]"
    )


def test_a_clusters_configuration_is_what_ray_reads(sait: Sait, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    yaml: Any = pytest.importorskip("yaml")
    schema: Any = pytest.importorskip("ray.serve.schema", reason="Ray has no wheel here")
    options = ("--points", "wide,fast", "--degrade", "--replicas", "3", "--token-budget", "500", "--queue", "64")
    where = ("--host", "0.0.0.0", "--token-file", _token(tmp_path), "--write-config", "serve.yaml")
    outcome = sait("serve", tiny_adaptive.path, *options, *where)
    assert (outcome.code, outcome.out) == (0, "")
    assert "serve deploy serve.yaml" in outcome.err
    text = (tmp_path / "serve.yaml").read_text()
    read = schema.ServeDeploySchema.model_validate(yaml.safe_load(text))
    assert (read.http_options.host, read.http_options.port, read.grpc_options.port) == ("0.0.0.0", 8000, 8001)
    (application,) = read.applications
    assert application.deployments[0].num_replicas == 3
    assert application.args["points"] == ["wide", "fast"]
    assert "s3cret" not in text
    from sait_deploy.serving.replica import build_application

    made = build_application(json.loads(json.dumps(application.args)))
    assert made._bound_deployment.name == application.deployments[0].name
    refused(
        sait("serve", tiny_adaptive.path, "--write-config", "serve.json"), 2, "no name of a YAML file", "serve.yaml"
    )


def test_a_configuration_consents_to_no_engine(sait: Sait, tiny_adaptive: Artifact) -> None:
    from sait_deploy.serving.replica import build_application

    done = sait("serve", tiny_adaptive.path, "--trust-engine", "--write-config", "serve.yaml")
    refused(done, 2, "a configuration cannot consent to engines", "build-engine")
    with pytest.raises(InvalidArgument, match="cannot consent"):
        build_application({"artifacts": ["here"], "consent": {"engines": "any"}})


def test_help_says_what_is_served(sait: Sait) -> None:
    outcome = sait("serve", "--help")
    assert outcome.code == 0
    for word in ("Open Inference Protocol", "/v1/predict", "--points", "--token-budget", "--write-config"):
        assert word in " ".join(outcome.out.split())
