"""The ``ai.sait`` operators: one entry and one folder each; what lists operators reads the entries."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import onnx

    from sait_deploy.plugins.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator, whose folder holds all that it is. Its parts are imported when they are asked for.

    The folder's modules are ``spec`` with ``SPEC``, ``reference`` and ``torch_op`` with a function of the folder's name
    each, ``onnx_function`` with ``BODY`` and, where the operator is a TensorRT plugin too, ``tensorrt_plugin`` with
    ``register``.

    Attributes:
        package: import name of the folder.
    """

    package: str

    @property
    def spec(self) -> OperatorSpec:
        """The contract."""
        return cast("OperatorSpec", self._module("spec").SPEC)

    @property
    def reference(self) -> Callable[..., Any]:
        """The operator in NumPy, which defines it."""
        return cast("Callable[..., Any]", self._named("reference"))

    @property
    def torch_operator(self) -> Any:
        """The operator in torch, a ``CustomOpDef``."""
        return self._named("torch_op")

    def function(self, opset: int) -> onnx.FunctionProto:
        """Returns the operator as a model-local function, for a model at ``opset`` (18 to 24)."""
        from sait_deploy.plugins.onnx_form import operator_function

        return operator_function(self.spec, self._module("onnx_function").BODY, opset)

    @property
    def has_tensorrt_plugin(self) -> bool:
        """Whether the operator can be a TensorRT plugin."""
        return importlib.util.find_spec(f"{self.package}.tensorrt_plugin") is not None

    def register_tensorrt_plugin(self, sm: int) -> None:
        """Defines the plugin for engines built in this process.

        Args:
            sm: compute capability of the GPU, major times 10 plus minor.

        Raises:
            MissingDependency: TensorRT or Triton is not installed.
            BuilderUnavailable: TensorRT is too old for plugins.
        """
        self._module("tensorrt_plugin").register(sm)

    def _named(self, module: str) -> Any:
        return getattr(self._module(module), self.package.rpartition(".")[2])

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")


OPERATORS: Final[dict[str, Operator]] = {
    "MassTokenSelect": Operator("sait_deploy.plugins.mass_token_select"),
    "PackRows": Operator("sait_deploy.plugins.pack_rows"),
    "ReadExtents": Operator("sait_deploy.plugins.read_extents"),
    "PackPlan": Operator("sait_deploy.plugins.pack_plan"),
    "PackedAttention": Operator("sait_deploy.plugins.packed_attention"),
    "UniformAttention": Operator("sait_deploy.plugins.uniform_attention"),
}
"""ONNX name to operator."""
