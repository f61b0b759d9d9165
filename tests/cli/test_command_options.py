"""What options have in common: sections of help, examples, files, the environment, old names, completion."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.cli import COMMANDS
from sait_deploy.cli._command import CONSENT_FLAGS, Command
from sait_deploy.runtime.registry import RUNTIMES
from tests.cli.calls import Sait


def command_of(name: str) -> Command:
    command = importlib.import_module(COMMANDS[name].module).command
    assert isinstance(command, Command)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_sections_and_ends_with_an_example_that_parses(sait: Sait, name: str) -> None:
    out = sait(name, "--help").out
    assert max(map(len, out.splitlines())) <= 80
    assert "\nCommon:\n" in out
    example = out.splitlines()[-1].strip()
    assert out.splitlines()[-2] == "Example:"
    program, called, *arguments = shlex.split(example)
    assert (program, called) == ("sait-deploy", name)
    command_of(name).make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_one_thing_has_one_name(name: str) -> None:
    """Old names are accepted, and belong to no option."""
    options = {name for option in command_of(name).params for name in option.opts}
    assert not options & {"--batch-size", "--batch-images", "--max-batch", "--dtype", "--artifacts"}
    assert ("--artifact" in options) == (name in ("predict", "batch"))
    assert "artifacts" not in options or name not in ("predict", "batch")
    for new in filter(None, command_of(name).renamed.values()):
        assert new in options


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["train", "--batch-size", "8"], "batch", 8),
        (["evaluate", "--batch-size=8"], "batch", 8),
        (["evaluate", "--artifact", "there"], "artifact", Path("there")),
        (["tune", "--artifact=there"], "artifact", Path("there")),
        (["serve", "--batch-images", "4"], "batch", 4),
        (["export", "--dtype", "fp16"], "precision", "fp16"),
        (["triton-repository", "there", "-o", "out", "--max-batch", "4"], "batch", 4),
        (["build-engine", "--artifacts", "there"], "workspace", Path("there")),
    ],
)
def test_old_names_mean_the_new_ones_and_say_so(
    capsys: pytest.CaptureFixture[str], arguments: list[str], name: str, value: object
) -> None:
    command, *rest = arguments
    context = command_of(command).make_context(command, rest)
    assert context.params[name] == value
    warning = capsys.readouterr().err
    assert warning.startswith("warning: --") and warning.count("\n") == 1
    assert "is an old name" in warning


def test_what_follows_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    context = command_of("evaluate").make_context("evaluate", ["--", "--artifact"])
    assert context.params["artifact"] == Path("--artifact")
    assert capsys.readouterr().err == ""


def test_gibibytes_given_as_workspace_are_refused_with_their_name(sait: Sait) -> None:
    done = sait("build-engine", "--workspace", "4")
    assert done.code == 2
    error, hint = done.err.splitlines()
    assert error == "error: --workspace 4 is a number, and --workspace is the folder of the last export"
    assert hint == "hint: GiB for the builder are --builder-workspace 4"


def test_a_folder_whose_name_is_a_number_is_a_workspace(sait: Sait) -> None:
    Path("4").mkdir()
    assert "nothing was exported to 4 yet" in sait("build-engine", "--workspace", "4").err


def test_options_come_from_a_file_and_the_command_line_replaces_them(sait: Sait, demo_workspace: Path) -> None:
    Path("options.toml").write_text(f"workspace = {json.dumps(str(demo_workspace))}\njson = true\n", encoding="utf-8")
    done = sait("inspect", "--config", "options.toml")
    assert done.code == 0, done.err
    assert json.loads(done.out)
    assert "nowhere" in sait("inspect", "--config", "options.toml", "--workspace", "nowhere").err


@pytest.mark.parametrize("text", ["0.5", '"0.5"', "[0.5]", '["0.5"]'])
def test_one_value_of_an_option_that_may_be_repeated_needs_no_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "options.toml").write_text(f"density = {text}\noutput = 4\noverwrite = true\n", encoding="utf-8")
    params = command_of("export").make_context("export", ["--config", str(tmp_path / "options.toml")]).params
    assert (params["densities"], params["output"], params["overwrite"]) == (("0.5",), Path("4"), True)


@pytest.mark.parametrize("typed", ["--artifact", "--artifact="])
def test_an_old_name_without_a_value_is_refused(sait: Sait, typed: str) -> None:
    done = sait("evaluate", typed)
    assert done.code == 2
    assert done.err.splitlines()[0] == "error: --artifact has no value"


def test_old_names_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("batch-size = 8\nlr = 1e-4\n", encoding="utf-8")
    context = command_of("train").make_context("train", ["--config", str(tmp_path / "recipe.toml")])
    assert (context.params["batch"], context.params["lr"]) == (8, 1e-4)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nonsense = 1", "has an option 'nonsense', which predict has not", "sait-deploy predict --help"),
        ("trust-engine = true", "has 'trust-engine'", "on the command line alone"),
        ("not toml", "cannot be read", "TOML"),
        ("config = 'more.toml'", "has 'config'", "on the command line alone"),
        ("debug = true", "has 'debug'", "on the command line alone"),
        ("[threads]\nmany = 1", "has {'many': 1} for 'threads'", "a number"),
        ("threads = [1, 2]", "has [1, 2] for 'threads'", "a number"),
        ("threads = true", "is not a valid integer range (from --config)", "predict --help"),
        ("workspace = 2001-01-01", "for 'workspace'", "a text"),
        ('threads = "many"', "is not a valid integer range (from --config)", "predict --help"),
    ],
)
def test_a_file_that_cannot_be_used(sait: Sait, text: str, message: str, hint: str) -> None:
    Path("options.toml").write_text(text, encoding="utf-8")
    done = sait("predict", "image.png", "--config", "options.toml")
    assert done.code == 2
    error, last = done.err.splitlines()
    assert message in error
    assert hint in last


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAIT_DEPLOY_EXPORT_DENSITY", "0.5 0.3")
    monkeypatch.setenv("SAIT_DEPLOY_EXPORT_OUTPUT", "there")
    context = command_of("export").make_context("export", [])
    assert (context.params["densities"], context.params["output"]) == (("0.5", "0.3"), Path("there"))
    context = command_of("export").make_context("export", ["--density", "0.7"])
    assert context.params["densities"] == ("0.7",)


def test_a_wrong_value_in_the_environment_is_named(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAIT_DEPLOY_PREDICT_THREADS", "many")
    done = sait("predict", "image.png")
    assert done.code == 2
    assert "--threads" in done.err and "SAIT_DEPLOY_PREDICT_THREADS" in done.err


def test_trust_comes_from_the_command_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from sait_deploy.engine.trust import Consent, granted

    for name in COMMANDS:
        for flag in CONSENT_FLAGS:
            monkeypatch.setenv(f"SAIT_DEPLOY_{name}_{flag[2:]}".replace("-", "_").upper(), "1")
    command_of("bench").make_context("bench", [])
    assert granted() == Consent()


def completed(sait: Sait, monkeypatch: pytest.MonkeyPatch, words: str, number: int) -> list[str]:
    """What bash is told of the words typed so far."""
    monkeypatch.setenv("_SAIT_DEPLOY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(number))
    return sait().out.splitlines()


def test_a_shell_completes_commands_runtimes_and_artifacts(
    sait: Sait, monkeypatch: pytest.MonkeyPatch, tiny_adaptive: Artifact
) -> None:
    assert completed(sait, monkeypatch, "sait-deploy ex", 1) == ["plain,export"]
    assert completed(sait, monkeypatch, "sait-deploy predict --runtime ", 3) == [f"plain,{name}" for name in RUNTIMES]
    several = completed(sait, monkeypatch, "sait-deploy bench --runtime onnxruntime,open", 3)
    assert several == ["plain,onnxruntime,openvino"]
    place = tiny_adaptive.path
    assert f"plain,{place}" in completed(sait, monkeypatch, f"sait-deploy bench {place.parent}/", 2)
    assert completed(sait, monkeypatch, "sait-deploy bench no", 2) == ["dir,no"]


def test_a_shell_completes_models(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    found = completed(sait, monkeypatch, "sait-deploy export --model deit_small_patch16", 3)
    assert "plain,deit_small_patch16_224" in found
