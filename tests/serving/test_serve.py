"""The command on a Ray of its own: from a fresh folder to answers, on loopback alone, and nothing left when it ends."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.system.children import child_environment
from tests.exported import IMAGE_SIZE, TinyExport
from tests.serving.started import Started, started
from tests.tiny import random_batch

pytest.importorskip("ray", reason="Ray has no wheel here")

ADAPTIVE = "test_vit-96px-adaptive"
DIGIT = sorted((demo.IMAGES / "7").iterdir())[0]


@pytest.mark.slow
def test_a_server_answers_every_client_on_loopback_alone(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    """One start for all that needs Ray, as a start takes half a minute."""
    with started(tiny_adaptive.path, tiny.dense.path, "--points", "wide,mass0.6,fast", "--degrade") as server:
        _check_sockets(server)
        _check_predict(server)
        _check_clients(server)
        _check_metrics(server)
        _check_a_killed_replica(server)


def _check_sockets(server: Started) -> None:
    listening = 0
    for process in [psutil.Process(server.process.pid), *server.descendants()]:
        for connection in process.net_connections(kind="inet"):
            for address in filter(None, (connection.laddr, connection.raddr)):
                ip = ipaddress.ip_address(address.ip)
                ip = getattr(ip, "ipv4_mapped", None) or ip
                assert ip.is_loopback, (process.name(), connection)
            listening += connection.status == psutil.CONN_LISTEN
    assert listening > 5


def _check_predict(server: Started) -> None:
    found = server.ask("/v1/predict?top=2", DIGIT.read_bytes())
    assert (found["model"], found["point"], found["of"], len(found["classes"])) == (ADAPTIVE, "wide", 36, 2)
    assert server.ask("/v1/predict?point=fast", DIGIT.read_bytes())["point"] == "fast"
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.ask("/v1/predict", b"no image")
    assert caught.value.code == 400 and "no image" in json.load(caught.value)["error"]
    with urllib.request.urlopen(server.url("/"), timeout=20) as page:
        assert b"Which tokens are kept" in page.read()


def _check_clients(server: Started) -> None:
    pixels = random_batch((3, 3, IMAGE_SIZE, IMAGE_SIZE))
    answers = []
    for module, port in (("tritonclient.http", server.port), ("tritonclient.grpc", server.grpc_port)):
        client_of: Any = pytest.importorskip(module, reason="tritonclient is not installed")
        client = client_of.InferenceServerClient(f"127.0.0.1:{port}")
        assert client.is_server_ready() and client.is_model_ready(ADAPTIVE)
        images = client_of.InferInput("images", pixels.shape, "FP32")
        images.set_data_from_numpy(pixels)
        answer = client.infer(ADAPTIVE, [images], parameters={"point": "fast"})
        answers.append((answer.as_numpy("logits"), answer.as_numpy("kept")))
        with pytest.raises(client_of.InferenceServerException, match="no model 'other'"):
            client.infer("other", [images])
    for over_http, over_grpc in zip(*answers, strict=True):
        np.testing.assert_allclose(over_http, over_grpc, rtol=1e-4, atol=1e-5)


def _check_metrics(server: Started) -> None:
    wanted = ("queue_images", "batch_images", "batch_tokens", "kept_tokens", "answered_images", "latency_seconds")
    give_up = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(server.url("/metrics"), timeout=20) as answer:
            text = answer.read().decode()
        missing = [name for name in wanted if f"ray_sait_deploy_{name}" not in text]
        if not missing or time.monotonic() > give_up:
            break
        time.sleep(0.5)
    assert not missing
    assert 'point="fast"' in text


def _check_a_killed_replica(server: Started) -> None:
    """Every request gets one answer: a result, or the protocol's 503 that says when to try again."""

    def ask(_: int) -> int:
        try:
            server.ask("/v1/predict", DIGIT.read_bytes())
        except urllib.error.HTTPError as error:
            assert list(json.load(error)) == ["error"] and int(error.headers["Retry-After"]) > 0
            return error.code
        return 200

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, i) for i in range(100)]
        (replica,) = [one for one in server.descendants() if "ServeReplica" in " ".join(one.cmdline())]
        replica.kill()
        statuses = [answer.result(timeout=90) for answer in answers]
    assert set(statuses) <= {200, 503} and len(statuses) == 100
    assert statuses.count(200) > 50 and ask(0) == 200


DRIVER = """
import json, sys, time, urllib.error, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from tests.serving.started import started

begun = Semaphore(0)

def refused():
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
    return int(dict(zip(*lines))["OutNoRoutes"])

def sent(body):
    begun.release()  # the head of the request is on its way
    yield body

def infer(_):
    images = 3 * 96 * 96 * 4 * 100
    text = json.dumps({"inputs": [{"name": "images", "shape": [100, 3, 96, 96], "datatype": "FP32",
                                   "parameters": {"binary_data_size": images}}]}).encode()
    headers = {**server.headers, "Inference-Header-Content-Length": str(len(text)),
               "Content-Length": str(len(text) + images)}
    address = server.url("/v2/models/test_vit-96px-adaptive/infer")
    with server.open(urllib.request.Request(address, sent(text + bytes(images)), headers)) as answer:
        return json.load(answer)["outputs"][1]["shape"]

def served():
    try:
        return "/" in server.ask("/-/routes")
    except urllib.error.HTTPError:
        return False

def refused_while_it_ends():
    try:
        while served():
            time.sleep(0.05)
        server.ask("/v1/predict", image.read_bytes())
    except urllib.error.HTTPError as error:
        return [error.code, error.headers["Retry-After"], list(json.load(error))]
    finally:
        replica.resume()

def live():
    import grpc
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{server.grpc_port}", credentials) as channel:
        return channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=60)

before = refused()
artifact, image, token, certificate, key = map(Path, sys.argv[1:])
options = ["--token-file", token, "--certificate", certificate, "--key", key, "--queue", 2000, "--time-limit", 60]
headers = {"Authorization": "Bearer s3cret"}
with started(artifact, *options, headers=headers, certificate=certificate) as server:
    assert live() == bytes([8, 1]), "a message that says live"
    found = server.ask("/v1/predict", image.read_bytes())
    replica = next(one for one in server.descendants() if "ServeReplica" in " ".join(one.cmdline()))
    with ThreadPoolExecutor(9) as pool:
        replica.suspend()  # so that nothing is answered before the server is told to end
        answers = [pool.submit(infer, i) for i in range(8)]
        for _ in answers:
            assert begun.acquire(timeout=60)
        assert served(), "the proxy answers this after it has read what came before"
        unanswered = sum(not answer.done() for answer in answers)
        refusal = pool.submit(refused_while_it_ends)
        server.stop()
        answers = [answer.result(60) for answer in answers]
        refusal = refusal.result(60)
looked_up = refused() - before
print(json.dumps({"kept": found["kept"], "unanswered": unanswered, "answers": answers, "looked_up": looked_up,
                  "refusal": refusal}))
"""


@pytest.mark.slow
def test_without_any_network_it_works_looks_nothing_up_and_answers_what_was_asked_before_it_ends(
    tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    """With TLS and a token. In a network of loopback alone, the kernel counts what has no route."""
    isolated = ["unshare", "--user", "--map-root-user", "--net"]
    if (
        not all(map(shutil.which, ("unshare", "ip", "openssl")))
        or subprocess.run([*isolated, "true"], check=False).returncode
    ):
        pytest.skip("this system has no openssl, or lets nobody make a network of its own")
    token, certificate, key = tmp_path / "token", tmp_path / "cert.pem", tmp_path / "key.pem"
    token.write_text("s3cret\n")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    arguments = f"{tiny_adaptive.path} {DIGIT} {token} {certificate} {key}"
    command = f'ip link set lo up && exec {sys.executable} -c "$DRIVER" {arguments}'
    root = str(Path(__file__).parents[2])
    environment = {**child_environment(), "DRIVER": DRIVER, "PYTHONPATH": root}
    done = subprocess.run(
        [*isolated, "sh", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kept"] > 0 and found["looked_up"] == 0, found
    assert found["unanswered"] == 8, "a suspended replica answered"
    assert found["answers"] == [[100]] * 8, "a request that was being answered was dropped"
    assert found["refusal"] == [503, "2", ["error"]], "a request that came while the server ended"
