"""``sait-deploy models``: the table, by part of a name or by wildcard."""

from __future__ import annotations

from collections import Counter

import pytest

from sait_deploy import demo
from sait_deploy.models.families import FAMILIES
from sait_deploy.models.hugging_face import CLASSES
from tests.cli.calls import Sait


def listed(out: str) -> list[str]:
    """The names in the first table."""
    return [line.split()[0] for line in out.split("\n\n", maxsplit=1)[0].splitlines()[1:]]


def test_all_of_them_the_demonstration_first(sait: Sait) -> None:
    done = sait("models")
    assert (done.code, done.err) == (0, "")
    first, *others = listed(done.out)
    assert first == demo.NAME
    assert others == sorted(others)
    assert {"deit_small_patch16_224", "deit_base_distilled_patch16_224", "vit_small_patch14_dinov2"} < set(others)
    assert done.out.splitlines()[1].split() == [demo.NAME, "96", "shipped", "timm-vit"]


def test_families_with_their_counts_and_the_classes_of_hugging_face(sait: Sait) -> None:
    out = sait("models").out
    names, families, folders = out.split("\n\n")
    of = Counter(line.split()[-1] for line in names.splitlines()[1:])
    rows = {line.split()[0]: line.split()[1] for line in families.splitlines()[2:] if not line.startswith(" ")}
    assert rows.keys() == FAMILIES.keys()
    assert rows == {family: str(of[family]) for family in FAMILIES}
    for architecture in CLASSES:
        assert architecture in folders
    assert list(listed(sait("models", "dinov3").out)) and "timm-vit" not in sait("models", "dinov3").out


@pytest.mark.parametrize("pattern", ["deit_small", "DeiT_Small", "*t_small_p*"])
def test_a_filter(sait: Sait, pattern: str) -> None:
    found = listed(sait("models", pattern).out)
    assert "deit_small_patch16_224" in found
    assert len(found) < 40


def test_a_wildcard_matches_whole_names(sait: Sait) -> None:
    found = listed(sait("models", "deit*").out)
    assert found
    assert all(name.startswith("deit") for name in found)
    assert listed(sait("models", "deit").out) == found
    assert sait("models", "*deit_small").code == 4


def test_image_size_and_number_of_pretrained_weights(sait: Sait) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in sait("models", "deit*_224").out.splitlines() if line}
    assert rows["deit_small_patch16_224"] == ["224", "1", "set", "timm-vit"]
    assert rows["deit3_small_patch16_224"] == ["224", "2", "sets", "timm-vit"]


@pytest.mark.parametrize(
    ("pattern", "source"),
    [(demo.NAME, ""), ("deit_small_patch16_224", " --pretrained"), ("lvvit_tiny", " --weights FILE")],
)
def test_what_comes_next_names_weights_that_there_are(sait: Sait, pattern: str, source: str) -> None:
    assert sait("models", pattern).following == f"sait-deploy export --model {pattern}{source}"


@pytest.mark.parametrize("pattern", ["resnet", "zzz*", "["])
def test_none_found(sait: Sait, pattern: str) -> None:
    done = sait("models", pattern)
    assert (done.code, done.out) == (4, "")
    assert done.err.splitlines() == [
        f"error: no supported model's name has {pattern!r} in it",
        "hint: list all: sait-deploy models",
    ]
