"""The Open Inference Protocol over gRPC by its own client, through the command's front."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime import RunOptions, load
from sait_deploy.serving.grpc_form import Reply, call
from sait_deploy.serving.grpc_messages import MESSAGES, messages
from sait_deploy.serving.model import NoObserver
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.server import open_server
from tests.exported import IMAGE_SIZE, TinyExport
from tests.serving.served import served_by_grpc
from tests.tiny import random_batch

client_of: Any = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
ADAPTIVE = "test_vit-96px-adaptive"


@pytest.fixture(scope="module")
def address(tiny: TinyExport, tiny_adaptive: Artifact) -> Iterator[str]:
    options = ModelsOptions(artifacts=(tiny_adaptive.path, tiny.dense.path), threads=1, max_body_mib=8)
    with served_by_grpc(options) as address:
        yield address


def image(pixels: np.ndarray[Any, Any], name: str = "images", datatype: str = "FP32") -> Any:
    tensor = client_of.InferInput(name, pixels.shape, datatype)
    tensor.set_data_from_numpy(pixels)
    return tensor


def test_messages_are_those_of_the_protocols_client() -> None:
    from tritonclient.grpc import service_pb2

    def fields(message: Any) -> dict[str, tuple[object, ...]]:
        return {
            field.name: (field.number, field.type, field.is_repeated, getattr(field.message_type, "full_name", None))
            for field in message.DESCRIPTOR.fields
        }

    for name in MESSAGES:
        theirs: Any = service_pb2
        for part in name.split("."):
            theirs = getattr(theirs, part)
        assert fields(messages()[name]) == fields(theirs), name


def test_the_protocols_own_client_works_unchanged(address: str, tiny_adaptive: Artifact) -> None:
    client = client_of.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(ADAPTIVE, "1")
    assert client.get_server_metadata().name == "sait-deploy"
    described = client.get_model_metadata(ADAPTIVE)
    assert [(one.name, one.datatype, list(one.shape)) for one in described.inputs] == [
        ("images", "FP32", [-1, 3, IMAGE_SIZE, IMAGE_SIZE]),
        ("mass", "FP32", [-1]),
        ("keep_limits", "INT32", [-1, 2]),
    ]
    pixels, masses = random_batch((3, 3, IMAGE_SIZE, IMAGE_SIZE)), np.array([0.3, 0.6, 1], np.float32)
    expected = load(tiny_adaptive, options=RunOptions(threads=1)).run(pixels, mass=masses)
    wanted = [client_of.InferRequestedOutput(name) for name in ("kept", "logits")]
    for outputs in (None, wanted):
        answer = client.infer(ADAPTIVE, [image(pixels), image(masses, "mass")], outputs=outputs, request_id="7")
        np.testing.assert_array_equal(answer.as_numpy("kept"), expected.kept)
        np.testing.assert_allclose(answer.as_numpy("logits"), expected.logits, rtol=1e-4, atol=1e-4)
        assert answer.get_response().id == "7"
        assert answer.get_response().parameters["point"].string_param == "request"
    answer = client.infer(ADAPTIVE, [image(pixels)], parameters={"point": "fast"})
    assert answer.get_response().parameters["point"].string_param == "fast"


def test_numbers_in_place_of_bytes_are_read_too(tiny: TinyExport) -> None:
    options = ModelsOptions(artifacts=(tiny.dense.path,), threads=1)
    server = open_server(options, NoObserver())
    request = messages()["ModelInferRequest"](model_name=tiny.dense.path.name)
    tensor = request.inputs.add(name="images", datatype="FP32", shape=[1, 3, IMAGE_SIZE, IMAGE_SIZE])
    pixels = random_batch((1, 3, IMAGE_SIZE, IMAGE_SIZE))
    tensor.contents.fp32_contents.extend(pixels.ravel().tolist())
    reply = asyncio.run(call(server, "ModelInfer", request.SerializeToString(), None))
    response = messages()["ModelInferResponse"].FromString(reply.message)
    expected = load(tiny.dense, options=RunOptions(threads=1)).run(pixels).logits
    np.testing.assert_allclose(np.frombuffer(response.raw_output_contents[0], np.float32), expected[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "inputs", "options", "status", "what"),
    [
        ("other", [("images", (1, 3, 96, 96))], {}, "NOT_FOUND", "no model 'other'"),
        (ADAPTIVE, [("images", (1, 3, 96, 96))], {"model_version": "2"}, "NOT_FOUND", "no version '2'"),
        (ADAPTIVE, [("pixels", (1, 3, 96, 96))], {}, "INVALID_ARGUMENT", "no input 'pixels'"),
        (ADAPTIVE, [("images", (1, 3, 96))], {}, "INVALID_ARGUMENT", "has shape [1, 3, 96]"),
        (ADAPTIVE, [("images", (1, 3, 96, 96)), ("mass", (2,))], {}, "INVALID_ARGUMENT", "batch of 1"),
        (ADAPTIVE, [("mass", (1,))], {}, "INVALID_ARGUMENT", "no input 'images'"),
        (ADAPTIVE, [("mass", (1,)), ("mass", (1,))], {}, "INVALID_ARGUMENT", "twice"),
        (ADAPTIVE, [("images", (1, 3, 96, 96))], {"parameters": {"point": "x"}}, "INVALID_ARGUMENT", "no point 'x'"),
        (ADAPTIVE, [("images", (80, 3, 96, 96))], {}, "INVALID_ARGUMENT", "larger than 8 MiB"),
    ],
)
def test_requests_that_cannot_be(
    address: str, model: str, inputs: list[tuple[str, Any]], options: dict[str, Any], status: str, what: str
) -> None:
    client = client_of.InferenceServerClient(address)
    tensors = [image(np.zeros(shape, np.float32), name) for name, shape in inputs]
    with pytest.raises(client_of.InferenceServerException) as caught:
        client.infer(model, tensors, **options)
    assert caught.value.status() == f"StatusCode.{status}"
    assert what in caught.value.message(), caught.value.message()


def test_bytes_that_are_no_message_and_tokens(tiny: TinyExport) -> None:
    options = ModelsOptions(artifacts=(tiny.dense.path,), threads=1)
    server = open_server(options, NoObserver(), token="s3cret")

    def asked(method: str, request: bytes, authorization: str | None) -> Reply:
        return asyncio.run(call(server, method, request, authorization))

    assert asked("ServerLive", b"", None).code == "OK"
    assert asked("ServerMetadata", b"", None).code == "UNAUTHENTICATED"
    assert asked("ServerMetadata", b"", "Bearer s3cret").code == "OK"
    too_large = asked("ModelInfer", b"\xff" * (options.max_body + 1), "Bearer s3cret")
    assert too_large.code == "INVALID_ARGUMENT" and "larger than 64 MiB" in too_large.detail
    reply = asked("ModelInfer", b"\xff\xff", "Bearer s3cret")
    assert (reply.code, reply.message) == ("INVALID_ARGUMENT", b"")
    assert "no ModelInferRequest" in reply.detail
