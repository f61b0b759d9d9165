"""``PackRows`` as a TensorRT plugin: its kernel goes into the engine."""

from __future__ import annotations

from collections.abc import Mapping

from sait_deploy.plugins.pack_rows.spec import SPEC
from sait_deploy.plugins.pack_rows.triton_kernel import compiled
from sait_deploy.plugins.tensorrt_form import Described, Expression, Launch, define_plugin, fixed_extent


def register(sm: int) -> None:
    """Defines the plugin ``ai_sait::PackRows`` for engines built in this process; to call it again is harmless.

    Its nodes need the attributes of :func:`sait_deploy.plugins.tensorrt_form.node_attributes`.

    Args:
        sm: compute capability of the GPU that the engine is built for, as major * 10 + minor.

    Raises:
        MissingDependency: TensorRT or Triton is not installed.
        BuilderUnavailable: TensorRT is older than 10.9.
    """

    def launch(inputs: Described, _: Described) -> Launch:
        batch, tokens = inputs[0].shape_expr
        return Launch(compiled(fixed_extent(inputs[0], 1, "tokens"), sm), grid=batch, sizes=(batch, tokens))

    define_plugin(SPEC, _shapes, launch)


def _shapes(inputs: Described, _: Mapping[str, int]) -> list[tuple[Expression, ...]]:
    batch, tokens = inputs[0].shape_expr
    return [(batch * tokens,), (batch + 1,)]
