"""The messages of the Open Inference Protocol over gRPC, made when the program runs: no generated code is shipped.

Names, numbers and types of the fields are those of the protocol's definition; a test compares them with its client's.
The messages stand in a pool of their own, as a process may also hold the client's.
"""

from __future__ import annotations

import functools
from typing import Any, Final

_PACKAGE: Final = "inference"
SERVICE: Final = f"{_PACKAGE}.GRPCInferenceService"

_PARAMETERS: Final = "map InferParameter parameters 4"
_CONTENTS: Final = "one InferTensorContents contents 5"
_NAMED: Final = ("one string name 1", "one string version 2")
_DESCRIBED: Final = ("one string name 1", "one string datatype 2", "many int64 shape 3")

MESSAGES: Final[dict[str, tuple[str, ...]]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("one bool live 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("one bool ready 1",),
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": ("one bool ready 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (*_NAMED, "many string extensions 3"),
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse.TensorMetadata": _DESCRIBED,
    "ModelMetadataResponse": (
        *("one string name 1", "many string versions 2", "one string platform 3"),
        *("many ModelMetadataResponse.TensorMetadata inputs 4", "many ModelMetadataResponse.TensorMetadata outputs 5"),
    ),
    "InferParameter": (
        *("any bool bool_param 1", "any int64 int64_param 2", "any string string_param 3"),
        *("any double double_param 4", "any uint64 uint64_param 5"),
    ),
    "InferTensorContents": (
        *("many bool bool_contents 1", "many int32 int_contents 2", "many int64 int64_contents 3"),
        *("many uint32 uint_contents 4", "many uint64 uint64_contents 5", "many float fp32_contents 6"),
        *("many double fp64_contents 7", "many bytes bytes_contents 8"),
    ),
    "ModelInferRequest.InferInputTensor": (*_DESCRIBED, _PARAMETERS, _CONTENTS),
    "ModelInferRequest.InferRequestedOutputTensor": ("one string name 1", "map InferParameter parameters 2"),
    "ModelInferRequest": (
        *("one string model_name 1", "one string model_version 2", "one string id 3", _PARAMETERS),
        *("many ModelInferRequest.InferInputTensor inputs 5",),
        *("many ModelInferRequest.InferRequestedOutputTensor outputs 6", "many bytes raw_input_contents 7"),
    ),
    "ModelInferResponse.InferOutputTensor": (*_DESCRIBED, _PARAMETERS, _CONTENTS),
    "ModelInferResponse": (
        *("one string model_name 1", "one string model_version 2", "one string id 3", _PARAMETERS),
        *("many ModelInferResponse.InferOutputTensor outputs 5", "many bytes raw_output_contents 6"),
    ),
}
"""Messages and their fields: once, many times, one of several (``any``), or by a name (``map``)."""

METHODS: Final = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""The service's methods, each of which has a Request and a Response."""


@functools.cache
def messages() -> dict[str, Any]:
    """Returns the class of each message by its name in the package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=_PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(MESSAGES, key=lambda name: name.count(".")):
        outer, _, inner = name.rpartition(".")
        made[name] = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        for field in MESSAGES[name]:
            _add_field(made[name], f".{_PACKAGE}.{name}", field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in MESSAGES
    }


def _add_field(message: Any, full_name: str, text: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    how, kind, name, number = text.split()
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if how in ("many", "map"):
        field.label = Field.LABEL_REPEATED
    if how == "any":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if how == "map":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "", "one string key 1")
        _add_field(entry, "", f"one {kind} value 2")
        kind = f"{full_name.removeprefix(f'.{_PACKAGE}.')}.{entry.name}"
    if kind in MESSAGES or how == "map":
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = getattr(Field, f"TYPE_{kind.upper()}")
