"""The Open Inference Protocol over HTTP by its own client, and images by plain requests, right ones and wrong ones."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image

from sait_deploy import ExportOptions, demo, export, mass_point
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime import RunOptions, load
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.refusals import Status
from tests.exported import IMAGE_SIZE, TinyExport
from tests.serving.served import Served, served
from tests.tiny import random_batch, randomised

ADAPTIVE = "test_vit-96px-adaptive"
DIGIT = sorted((demo.IMAGES / "7").iterdir())[0]


def ask(
    server: Served, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(server.address, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def error(server: Served, path: str, body: bytes | dict[str, Any] | None, **headers: str) -> tuple[int, str]:
    """Posts what is wrong, and returns the status and the line of the error's document."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, _, answer = ask(server, "POST", path, data, named)
    document = json.loads(answer)
    assert list(document) == ["error"]
    assert "\n" not in document["error"]
    return status, document["error"]


def document(images: int = 1, **changes: Any) -> dict[str, Any]:
    """A request of zeros, with changes to its first input or to itself."""
    zeros = [0.0] * (images * 3 * IMAGE_SIZE * IMAGE_SIZE)
    first = {"name": "images", "shape": [images, 3, IMAGE_SIZE, IMAGE_SIZE], "datatype": "FP32", "data": zeros}
    own = {name: value for name, value in changes.items() if name in first}
    rest = {name: value for name, value in changes.items() if name not in first and name != "more"}
    return {"inputs": [{**first, **own}, *changes.get("more", [])], **rest}


def test_the_protocols_own_client_works_unchanged(server: Served, tiny_adaptive: Artifact) -> None:
    client_of = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    client = client_of.InferenceServerClient(server.address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(ADAPTIVE, "1")
    assert client.get_server_metadata()["name"] == "sait-deploy"
    metadata = client.get_model_metadata(ADAPTIVE)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["images", "mass", "keep_limits"]
    pixels = random_batch((3, 3, IMAGE_SIZE, IMAGE_SIZE))
    masses = np.array([0.3, 0.6, 1], np.float32)
    expected = load(tiny_adaptive, options=RunOptions(threads=1)).run(pixels, mass=masses)
    for binary in (True, False):
        images = client_of.InferInput("images", pixels.shape, "FP32")
        images.set_data_from_numpy(pixels, binary_data=binary)
        mass = client_of.InferInput("mass", masses.shape, "FP32")
        mass.set_data_from_numpy(masses, binary_data=binary)
        outputs = [client_of.InferRequestedOutput(name, binary_data=not binary) for name in ("kept", "logits")]
        for wanted in (None, outputs):
            answer = client.infer(ADAPTIVE, [images, mass], outputs=wanted, request_id="7")
            np.testing.assert_array_equal(answer.as_numpy("kept"), expected.kept)
            np.testing.assert_allclose(answer.as_numpy("logits"), expected.logits, rtol=1e-4, atol=1e-4)
            assert answer.get_response()["id"] == "7"
    answer = client.infer(ADAPTIVE, [images], parameters={"point": "fast"}, model_version="1")
    assert answer.get_response()["parameters"] == {"point": "fast"}
    with pytest.raises(Exception, match="no point 'fats'"):
        client.infer(ADAPTIVE, [images], parameters={"point": "fats"})


def test_an_image_gets_its_classes_kept_tokens_and_point(server: Served, tiny_adaptive: Artifact) -> None:
    runner = load(tiny_adaptive, options=RunOptions(threads=1))
    for suffix, query in (("PNG", "point=fast"), ("JPEG", "mass=0.9&max_keep=20"), ("WEBP", "top=2")):
        file = io.BytesIO()
        Image.open(DIGIT).convert("RGB").save(file, suffix)
        status, _, answer = ask(server, "POST", f"/v1/predict?{query}", file.getvalue())
        found = json.loads(answer)
        assert status == 200
        asked = dict(pair.split("=") for pair in query.split("&"))
        limits = {name: float(value) for name, value in asked.items() if name in ("mass", "max_keep")}
        output = runner.run(runner.preprocess(Image.open(file)), point=asked.get("point"), **limits)
        assert (found["kept"], found["of"]) == (output.kept[0], 36)
        assert found["point"] == (asked.get("point") or ("request" if limits else "mass0.6"))
        assert found["classes"][0]["label"] == str(output.logits[0].argmax())
        assert len(found["classes"]) == int(asked.get("top", 5))
        assert "picture" not in found
    for model in (ADAPTIVE, "test_vit-96px-density0.5", "test_vit-96px-dense"):
        _, _, answer = ask(server, "POST", f"/v1/predict?model={model}&picture=1", DIGIT.read_bytes())
        assert json.loads(answer)["picture"].startswith("iVBOR"), "a PNG"


def test_health_metadata_and_page_are_there(server: Served) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{ADAPTIVE}/ready", "/v2", "/metrics"):
        assert ask(server, "GET", path)[0] == 200
    status, headers, page = ask(server, "GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"://" not in page, "the page loads nothing from elsewhere"


def header_of(width: int, height: int) -> bytes:
    """The beginning of a PNG of that size, which holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the data is empty"),
        (b"no image at all", "no image, or of an unknown format"),
        (DIGIT.read_bytes()[:200], "cut short|cannot be"),
        (header_of(50_000, 50_000), "too large"),
        (header_of(9000, 9000), "9000 x 9000 pixels is too large"),
    ],
    ids=["empty", "text", "cut short", "50,000 x 50,000", "9,000 x 9,000"],
)
def test_what_is_no_usable_image_is_refused(server: Served, data: bytes, what: str) -> None:
    started = time.monotonic()
    status, line = error(server, "/v1/predict", data)
    assert status == 400
    assert any(part in line for part in what.split("|")), line
    assert time.monotonic() - started < 5, "nothing was decoded"


def test_an_image_of_one_pixel_is_one(server: Served) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    assert ask(server, "POST", "/v1/predict", file.getvalue())[0] == 200


@pytest.mark.parametrize(
    ("query", "status", "what"),
    [
        ("model=other", 404, "no model 'other' is served"),
        ("point=fats", 400, "no point 'fats'"),
        ("mass=much", 400, "mass 'much' is not a number"),
        ("mass=nan", 400, "mass nan is no number from 0 on"),
        ("min_keep=9&max_keep=3", 400, "min_keep 9 is above max_keep"),
        ("min_keep=2.5", 400, "no whole number"),
        ("top=0", 400, "top '0'"),
        ("tpo=3", 400, "unknown parameter 'tpo'"),
        ("model=test_vit-96px-dense&mass=0.5", 400, "its operating point is fixed"),
    ],
)
def test_parameters_of_an_image_that_cannot_be(server: Served, query: str, status: int, what: str) -> None:
    found, line = error(server, f"/v1/predict?{query}", DIGIT.read_bytes())
    assert (found, what in line) == (status, True), line


INFER = f"/v2/models/{ADAPTIVE}/infer"
FIRST = {"name": "mass", "shape": [1], "datatype": "FP32", "data": [0.5]}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{", "the request is no JSON: EOF"),
        (b"[]", "the request"),
        (b"null", "no JSON object"),
        ({}, "inputs is missing"),
        ({"inputs": []}, "no input 'images'"),
        ({"inputs": [FIRST]}, "no input 'images'"),
        (document(color=1), "color"),
        (document(name="pixels"), "no input 'pixels'"),
        (document(datatype="FP16"), "is FP32, not 'FP16'"),
        (document(shape=[1, 3, 96]), "has shape [1, 3, 96]"),
        (document(shape=[1, 3, 95, 96]), "has shape [1, 3, 95, 96]"),
        (document(shape=[0, 3, 96, 96]), "has shape [0, 3, 96, 96]"),
        (document(shape=[2, 3, 96, 96]), "numbers of FP32"),
        (document(data=[0.0, 1.0]), "numbers of FP32"),
        (document(data=["a"]), "is not FP32"),
        (document(data=[[0.0], 1.0]), "is not FP32"),
        (document(data=None), "has no data"),
        (document(more=[FIRST, FIRST]), "'mass' is there twice"),
        (document(more=[{**FIRST, "data": [float("nan")]}]), "mass of image 0, nan|mass nan|finite"),
        (document(more=[{**FIRST, "shape": [2], "data": [0.5, 0.5]}]), "shape [2] for a batch of 1"),
        (
            document(more=[{"name": "keep_limits", "shape": [1, 2], "datatype": "INT32", "data": [9, 3]}]),
            "is above max_keep",
        ),
        (
            document(more=[{"name": "keep_limits", "shape": [1, 2], "datatype": "INT32", "data": [1 << 40, 3]}]),
            "numbers of INT32",
        ),
        (document(parameters={"point": 3}), "'point' is 3"),
        (document(parameters={"point": "fats"}), "no point 'fats'"),
        (document(outputs=[{"name": "classes"}]), "no output 'classes'"),
        (document(data=[float("nan")] * (3 * 96 * 96)), "not finite"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_requests_that_are_not_the_protocols(server: Served, body: bytes | dict[str, Any], what: str) -> None:
    status, line = error(server, INFER, body)
    assert status == 400
    assert any(part in line for part in what.split("|")), line


@pytest.mark.parametrize(("size", "what"), [(100, "100 bytes"), (10**9, "bytes"), (-1, "bytes")])
def test_bytes_of_tensors_that_do_not_fit(server: Served, size: int, what: str) -> None:
    image = {"name": "images", "shape": [1, 3, 96, 96], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [image]}).encode()
    status, line = error(server, INFER, text + bytes(100), Inference_Header_Content_Length=str(len(text)))
    assert (status, what in line) == (400, True), line
    status, line = error(server, INFER, text, Inference_Header_Content_Length="1" * 9)
    assert (status, "Inference-Header-Content-Length" in line) == (400, True)
    whole = json.dumps(document()).encode()
    status, line = error(server, INFER, whole + b"more", Inference_Header_Content_Length=str(len(whole)))
    assert (status, "4 bytes of the body belong to no input" in line) == (400, True)


def test_places_that_are_none(server: Served) -> None:
    assert error(server, "/v2/models/other/infer", document())[0] == 404
    assert error(server, f"/v2/models/{ADAPTIVE}/versions/2/infer", document())[0] == 404
    assert error(server, "/v3", b"")[0] == 404
    status, line = error(server, "/v2", b"")
    assert (status, "does not take POST" in line) == (400, True)


def test_a_request_that_is_too_large_is_refused_before_it_is_read(server: Served) -> None:
    status, line = error(server, INFER, b"", Content_Length=str(9 << 20))
    assert (status, "larger than 8 MiB" in line) == (413, True)
    with socket.create_connection(tuple(server.address.split(":")), timeout=20) as connection:  # type: ignore[arg-type]
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        part = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        try:
            for _ in range(9):
                connection.sendall(part)
        except OSError:
            pass  # the server answered and closed
        assert b" 413 " in connection.recv(4096)
    assert error(server, INFER, b"x", Content_Encoding="gzip")[0] == 400


def test_a_slow_client_is_given_up_while_others_are_answered(server: Served) -> None:
    with socket.create_connection(tuple(server.address.split(":")), timeout=20) as slow:  # type: ignore[arg-type]
        slow.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + b"{")
        assert ask(server, "POST", "/v1/predict", DIGIT.read_bytes())[0] == 200
        answer = slow.recv(4096)
    assert b" 408 " in answer and b"did not arrive within 5 s" in answer


def test_a_client_that_leaves_leaves_nothing_behind(server: Served) -> None:
    body = json.dumps(document(8)).encode()
    for _ in range(3):
        with socket.create_connection(tuple(server.address.split(":")), timeout=20) as leaving:  # type: ignore[arg-type]
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            leaving.sendall(head.encode() + body)
    model = server.server.model(ADAPTIVE)
    give_up = time.monotonic() + 10
    while model.waiting and time.monotonic() < give_up:
        time.sleep(0.02)
    assert model.waiting == 0
    assert ask(server, "POST", "/v1/predict", DIGIT.read_bytes())[0] == 200


def test_many_connections_are_all_answered_and_none_twice(server: Served) -> None:
    """A full queue answers 503 with the seconds to wait."""
    from concurrent.futures import ThreadPoolExecutor

    body = DIGIT.read_bytes()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(server, "POST", "/v1/predict", body), range(200)))
    statuses = {status for status, _, _ in answers}
    assert statuses <= {200, 503} and 200 in statuses
    assert all("retry-after" in headers for status, headers, _ in answers if status == 503)


def test_a_token_is_asked_for_everywhere_but_at_the_page_and_at_health(tiny: TinyExport) -> None:
    pytest.importorskip("uvicorn", reason="the server needs Ray, which brings uvicorn and has no wheel here")
    options = ModelsOptions(artifacts=(tiny.half.path,), threads=1)
    with served(options, token="s3cret") as server:
        assert ask(server, "GET", "/")[0] == ask(server, "GET", "/v2/health/ready")[0] == 200
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "s3cret"}):
            for method, path in (("GET", "/v2"), ("GET", "/metrics"), ("POST", "/v1/predict")):
                status, found, answer = ask(server, method, path, b"" if method == "POST" else None, headers)
                assert (status, found["www-authenticate"]) == (401, "Bearer")
                assert b"token" in answer and b"s3cret" not in answer
        assert ask(server, "POST", "/v1/predict", DIGIT.read_bytes(), {"Authorization": "Bearer s3cret"})[0] == 200
    assert Status.UNAUTHENTICATED in server.seen.refusals


def test_answers_of_a_batch_with_bad_requests_are_unharmed(server: Served) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bad = [document(data=[float("nan")] * (3 * 96 * 96)), document(name="pixels"), document(parameters={"point": "x"})]
    alone = json.loads(ask(server, "POST", INFER, json.dumps(document()).encode())[2])["outputs"]
    with ThreadPoolExecutor(12) as pool:
        requests = [document() if i % 2 else bad[i % 3] for i in range(24)]
        answers = list(pool.map(lambda one: ask(server, "POST", INFER, json.dumps(one).encode()), requests))
    for i, (status, _, answer) in enumerate(answers):
        assert status == (200 if i % 2 else 400)
        if i % 2:
            found = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
            np.testing.assert_allclose(found["logits"], alone[0]["data"], rtol=1e-3, atol=1e-4)
            assert found["kept"] == alone[1]["data"]


def test_a_model_of_grey_images_says_and_takes_one_channel(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the server needs Ray, which brings uvicorn and has no wheel here")
    vit = timm.create_model("test_vit", img_size=32, num_classes=0, in_chans=1)
    artifacts = export(randomised(vit, seed=1), ExportOptions(points=(mass_point(0.6),), output=tmp_path))
    with served(ModelsOptions(artifacts=(artifacts[-1].path,), threads=1)) as server:
        name = artifacts[-1].path.name
        described = json.loads(ask(server, "GET", f"/v2/models/{name}")[2])
        assert described["inputs"][0]["shape"] == [-1, 1, 32, 32]
        first = {"name": "images", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": [0.5] * 1024}
        status, _, answer = ask(server, "POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [first]}).encode())
        output = json.loads(answer)["outputs"][0]
        assert (status, output["name"], output["shape"]) == (200, described["outputs"][0]["name"], [1, 64])
        assert described["outputs"][0]["shape"] == [-1, 64]
        assert error(server, "/v1/predict", DIGIT.read_bytes())[0] == 400, "it has no classes"
