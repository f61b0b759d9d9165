"""Asks NVIDIA's own Python front end of TensorRT to parse and configure what a build asks for; nothing is built.

    PYTHONPATH=FRONTEND/py:CHECKOUT LD_LIBRARY_PATH=FRONTEND/lib python -m tests.engine.frontend_engines < requests

One request a line; of each part one line of JSON says what TensorRT makes of it.
"""

from __future__ import annotations

import json
import sys

import tensorrt as trt

from sait_deploy.engine.builder import BuildContext, _config, _network_info, _parsed
from sait_deploy.engine.callbacks import message_collector
from sait_deploy.engine.request import BuildRequest


def main() -> None:
    for line in sys.stdin:
        request = BuildRequest.from_json(line)
        for part in request.parts:
            context = BuildContext(lambda _: None, lambda: False)
            logger = message_collector(trt, context.errors.append, lambda _: None)
            builder = trt.Builder(logger)
            network, _parser = _parsed(trt, builder, logger, request, part, context)
            config = _config(trt, builder, network, request, part)
            said = {
                "fused": _network_info(trt, network).attention_fused,
                "profiles": config.num_optimization_profiles,
                "stripped": config.get_flag(trt.BuilderFlag.STRIP_PLAN),
                "errors": context.errors,
            }
            print(json.dumps(said))


if __name__ == "__main__":
    main()
