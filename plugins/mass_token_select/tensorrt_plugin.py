"""``MassTokenSelect`` as a TensorRT plugin: its kernel goes into the engine."""

from __future__ import annotations

from collections.abc import Mapping

from sait_deploy.plugins.mass_token_select.spec import SPEC
from sait_deploy.plugins.mass_token_select.triton_kernel import compiled
from sait_deploy.plugins.tensorrt_form import Described, Expression, Launch, define_plugin, fixed_extent


def register(sm: int) -> None:
    """Defines the plugin ``ai_sait::MassTokenSelect`` for engines built in this process; to call it again is harmless.

    Its nodes need the attributes of :func:`sait_deploy.plugins.tensorrt_form.node_attributes` beside ``prefix``.

    Args:
        sm: compute capability of the GPU that the engine is built for, as major * 10 + minor.

    Raises:
        MissingDependency: TensorRT or Triton is not installed.
        BuilderUnavailable: TensorRT is older than 10.9.
    """

    def launch(inputs: Described, outputs: Described) -> Launch:
        importance, keep = inputs[0], outputs[0]
        kernel = compiled(fixed_extent(importance, 1, "patch tokens"), sm)
        batch, patches = importance.shape_expr
        return Launch(kernel, grid=batch, sizes=(patches, keep.shape_expr[1]))

    define_plugin(SPEC, _shapes, launch)


def _shapes(inputs: Described, attributes: Mapping[str, int]) -> list[tuple[Expression, ...]]:
    batch, patches = inputs[0].shape_expr
    return [(batch, patches + attributes["prefix"]), (batch,)]
