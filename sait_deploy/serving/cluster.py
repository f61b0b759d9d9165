"""The configuration of a cluster's server, as ``serve deploy`` and KubeRay read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from sait_deploy.artifacts.files import write_whole
from sait_deploy.errors import InvalidArgument
from sait_deploy.serving.local import ServeOptions
from sait_deploy.serving.names import APPLICATION, DEPLOYMENT
from sait_deploy.serving.replica import arguments_of

_HEAD: Final = """\
# A server of sait-deploy on a Ray cluster: serve deploy {name}
# Paths are those of the cluster's machines, each of which needs the artifacts and sait-deploy[serve].
"""


def configuration(options: ServeOptions) -> dict[str, Any]:
    """Returns the configuration as plain data.

    Raises:
        InvalidArgument: the options consent to engines, which a file cannot.
    """
    listening, models = options.listening, options.models
    return {
        "proxy_location": "EveryNode",
        "http_options": listening.http_options(models.time_limit_s),
        "grpc_options": {
            "port": listening.grpc_port,
            "grpc_servicer_functions": ["sait_deploy.serving.replica:add_service"],
            "enable_reflection": False,
        },
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "sait_deploy.serving.replica:build_application",
                "args": arguments_of(models, listening.token_file),
                "deployments": [{"name": DEPLOYMENT, "num_replicas": options.replicas}],
            }
        ],
    }


def write_configuration(options: ServeOptions, file: Path) -> None:
    """Writes the configuration.

    Raises:
        InvalidArgument: the file is not to be one of YAML.
        StorageError: it cannot be written.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise InvalidArgument(f"{file} is no name of a YAML file", "such as serve.yaml")
    text = _HEAD.format(name=file.name) + _yaml(configuration(options), 0)
    write_whole(file, text)


def _yaml(value: Any, depth: int) -> str:
    """Returns plain data as YAML blocks; every text and number stands in JSON's form, which is YAML too."""
    space = "  " * depth
    lines = []
    for name, item in value.items():
        if isinstance(item, dict):
            lines.append(f"{space}{name}:\n{_yaml(item, depth + 1)}")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            blocks = (_yaml(each, depth + 2) for each in item)
            marked = (f"{space}  - {block[len(space) + 4 :]}" for block in blocks)
            lines.append(f"{space}{name}:\n{''.join(marked)}")
        else:
            lines.append(f"{space}{name}: {json.dumps(item)}\n")
    return "".join(lines)
