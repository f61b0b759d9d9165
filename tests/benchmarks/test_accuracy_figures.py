"""The README's section on accuracy: what a result file says, in the words and tables of the section."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy_figures, common, demo_training
from sait_deploy import demo
from sait_deploy.demo.data import CANVAS, CanvasOptions, Split, load_sources
from sait_deploy.tokens import default_prune_at
from tests.benchmarks.documents import CANVASES, make_document, row_of, write_document

Document = dict[str, Any]
RIVALS = "| | rival | equal | seed 0 | seed 1 | seed 2 |"
POINTS = "| | MAC ratio | kept, mean / p95 | change of top-1 | densities there |"
ABLATION = "| | dense | density 0.49 | density 0.28 | density 0.15 | mass 0.9 | mass 0.7 | mass 0.6 |"
SHIFT = "| images | dense | point | seeds | change | it keeps | MAC ratio |"


@pytest.fixture
def document() -> Document:
    return make_document()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


def section(results: Path, document: Document) -> list[str]:
    write_document(results, document)
    return accuracy_figures.accuracy()


def table(lines: list[str], heading: str) -> list[str]:
    """The rows below a heading."""
    start = lines.index(heading) + 2
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))


def line_of(lines: list[str], heading: str, beginning: str) -> str:
    (found,) = (line for line in table(lines, heading) if line.startswith(beginning))
    return found


def comparison(document: Document, seed: int, first: str, second: str, basis: str = "equal MACs") -> dict[str, Any]:
    wanted = (first, second, basis)
    found: dict[str, Any] = next(
        one
        for one in document["evaluations"][f"student-{seed}"]["comparisons"]
        if (one["first"], one["second"], one["basis"]) == wanted
    )
    return found


def drop(items: list[Any], item: Any) -> None:
    items[:] = [other for other in items if other is not item]


def test_every_row_of_a_table_has_a_cell_below_each_heading(results: Path, document: Document) -> None:
    lines, seen = section(results, document), 0
    for is_table, rows in itertools.groupby(lines, lambda line: line.startswith("|")):
        if is_table:
            cells = {row.count("|") for row in rows}
            assert len(cells) == 1
            seen += 1
    assert seen == 6
    assert not any("nan" in line for line in lines)


def test_words_are_those_of_the_demonstration(results: Path, document: Document) -> None:
    sources, sizes = load_sources(Split.HELD_OUT), CanvasOptions().digit_scale
    patches = (demo.ARCHITECTURE["img_size"] // demo.ARCHITECTURE["patch_size"]) ** 2
    depth = demo.ARCHITECTURE["depth"]
    told = " ".join(section(results, document))
    assert f"({CANVAS} px, {patches} patch tokens, pruned inside block {default_prune_at(depth)} of {depth})" in told
    assert f"digits of {sizes[0]:g} to {sizes[1]:g} times their size" in told
    assert f"the same {len(sources.pixels)} digits and {len(sources.photographs)} photographs" in told
    assert "on 2,500 held-out" in told
    assert "2 dense teachers" in told
    assert "each of 3 seeds" in told


def test_dense_figures_and_changes_are_mean_and_deviation_over_seeds(results: Path, document: Document) -> None:
    lines = section(results, document)
    told = " ".join(lines)
    assert "the teachers are 97.00 ± 0.14 % right, the plain models 97.50 ± 0.10 %, the students 97.40 ± 0.10 %" in told
    rows = table(lines, next(line for line in lines if line.startswith("| density | MACs saved")))
    assert rows == [
        "| 0.49 | 40 % | -0.20 ± 0.10 | -0.80 ± 0.10 | -1.00 ± 0.14 |",
        "| 0.28 | 55 % | -0.70 ± 0.20 | -2.80 ± 0.20 | -3.50 ± 0.71 |",
        "| 0.15 | 64 % | -2.50 ± 0.50 | -9.00 ± 1.00 | -10.00 ± 1.41 |",
    ]


def test_targets_stand_as_they_were_found(results: Path, document: Document) -> None:
    document["summary"]["targets"][3]["reached"] = False
    rows = table(section(results, document), "| target | found | reached |")
    assert [row.endswith("| yes |") for row in rows] == [index != 3 for index in range(18)]
    assert rows[3] == "| 55 % fewer MACs cost at most 1 points | 0.70 | no |"


def test_points_are_densities_and_masses_that_were_asked_for(results: Path, document: Document) -> None:
    rows = table(section(results, document), POINTS)
    assert [row.split("|")[1].strip() for row in rows] == [
        *("density 0.49", "density 0.28", "density 0.15"),
        *("mass 0.97", "mass 0.9", "mass 0.7", "mass 0.6", "mass 0.5"),
    ]
    assert rows[1] == "| density 0.28 | 2.22 × | 41.0 / 41 | -0.70 ± 0.20 |  |"


def test_beside_a_mass_stands_the_line_between_densities(results: Path, document: Document) -> None:
    for seed in range(3):
        evaluation = document["evaluations"][f"student-{seed}"]
        dear, cheap = row_of(evaluation, "density0.28"), row_of(evaluation, "density0.15")
        row_of(evaluation, "mass0.6")["macs"] = (cheap["macs"] + dear["macs"]) / 2
        row_of(evaluation, "mass0.9")["macs"] = dear["macs"]
        row_of(evaluation, "mass0.97")["macs"] = row_of(evaluation, "dense")["macs"]
    row_of(document["evaluations"]["student-1"], "mass0.5")["macs"] = 1
    lines = section(results, document)
    # Half of the way from -2.0, -2.5, -3.0 to -0.5, -0.7, -0.9.
    assert line_of(lines, POINTS, "| mass 0.6 ").endswith("| -1.60 ± 0.35 |")
    assert line_of(lines, POINTS, "| mass 0.9 ").endswith("| -0.70 ± 0.20 |")
    assert line_of(lines, POINTS, "| mass 0.97 ").endswith("| +0.00 ± 0.00 |")
    assert line_of(lines, POINTS, "| mass 0.5 ").endswith("| – |"), "no density is as cheap"


def test_a_point_is_the_mean_over_the_seeds(results: Path, document: Document) -> None:
    for seed, (kept, ratio, change) in enumerate(((38.0, 2.0, -0.1), (41.0, 2.5, -0.2), (44.0, 3.0, -0.6))):
        row = row_of(document["evaluations"][f"student-{seed}"], "mass0.9")
        row |= {"kept_mean": kept, "kept_p95": 2 * kept, "mac_ratio": ratio}
        row["top1_change"]["value"] = change
    found = line_of(section(results, document), POINTS, "| mass 0.9 ")
    assert found.startswith("| mass 0.9 | 2.50 × | 41.0 / 82 | -0.30 ± 0.26 |")


def test_a_point_that_another_seed_lacks_is_told_of_the_others(results: Path, document: Document) -> None:
    for seed, change in ((0, -0.2), (2, -0.4)):
        row_of(document["evaluations"][f"student-{seed}"], "mass0.97")["top1_change"]["value"] = change
    rows = document["evaluations"]["student-1"]["rows"]
    drop(rows, row_of(document["evaluations"]["student-1"], "mass0.97"))
    whole = section(results, document)
    assert line_of(whole, POINTS, "| mass 0.97 ").split(" | ")[3] == "-0.30 ± 0.14"


def test_a_point_against_each_rival_has_a_column_a_seed(results: Path, document: Document) -> None:
    for seed, gain in enumerate((0.25, -0.5, 0.75)):
        difference = {"low": gain - 0.5, "value": gain, "high": gain + 0.5}
        comparison(document, seed, "density0.49", "80px")["difference"] = difference
    rows = table(section(results, document), RIVALS)
    assert rows[0] == "| density 0.49 | 80 px | MACs | +0.25 | -0.50 | **+0.75** |"
    assert rows[1] == "| density 0.28 | 72 px | MACs | **+1.00** | **+1.00** | **+1.00** |"
    assert "| density 0.28 | least important 0.28 | MACs | **+70.00** | **+70.00** | **+70.00** |" in rows
    assert "| mass 0.9 | density | MACs | -0.10 | -0.10 | -0.10 |" in rows


def test_a_mass_is_not_told_against_a_lower_resolution(results: Path, document: Document) -> None:
    rows = table(section(results, document), RIVALS)
    assert len(rows) == len(document["evaluations"]["student-0"]["comparisons"]) - 1
    assert not any(row.startswith("| mass") and ("px" in row or "-2.50" in row) for row in rows)


def test_only_the_first_seed_has_equal_times(results: Path, document: Document) -> None:
    rows = [row for row in table(section(results, document), RIVALS) if "| time |" in row]
    assert rows == [
        "| mass 0.9 | density | time | +0.00 | – | – |",
        "| mass 0.6 | density | time | **+0.70** | – | – |",
        "| mass 0.5 | density | time | **+0.80** | – | – |",
    ]


def test_a_rival_may_be_of_another_size_in_another_seed(results: Path, document: Document) -> None:
    for seed, (rival, gain) in {1: ("density0.28", 0.2), 2: ("density0.15", 0.4)}.items():
        one = comparison(document, seed, "mass0.9", "kept50")
        one["second"], one["difference"] = rival, {"low": gain - 0.3, "value": gain, "high": gain + 0.3}
    found = line_of(section(results, document), RIVALS, "| mass 0.9 | density | MACs ")
    assert found == "| mass 0.9 | density | MACs | -0.10 | +0.20 | **+0.40** |"


def test_a_rival_of_another_kind_or_basis_fills_no_cell(results: Path, document: Document) -> None:
    comparison(document, 1, "mass0.9", "kept50")["second"] = "72px"
    comparison(document, 2, "mass0.9", "kept50")["basis"] = "equal time"
    document["evaluations"]["student-1"]["comparisons"][:] = [
        one for one in document["evaluations"]["student-1"]["comparisons"] if one["first"] != "density0.49"
    ]
    lines = section(results, document)
    assert line_of(lines, RIVALS, "| mass 0.9 | density | MACs ") == "| mass 0.9 | density | MACs | -0.10 | – | – |"
    assert line_of(lines, RIVALS, "| mass 0.9 | density | time ").endswith("| time | +0.00 | – | -0.10 |")
    assert line_of(lines, RIVALS, "| density 0.49 | 80 px ").endswith("| +0.30 | – | +0.30 |")


@pytest.mark.parametrize(
    ("low", "value", "high", "cell"),
    [
        (0.01, 0.5, 1.0, "**+0.50**"),
        (-1.0, -0.5, -0.01, "**-0.50**"),
        (-0.1, 0.5, 1.1, "+0.50"),
        (-1.1, -0.5, 0.1, "-0.50"),
        (0.0, 0.5, 1.0, "+0.50"),
        (-1.0, -0.5, 0.0, "-0.50"),
        (0.0, 0.0, 0.0, "+0.00"),
    ],
)
def test_bold_is_where_the_interval_leaves_zero_out(
    results: Path, document: Document, low: float, value: float, high: float, cell: str
) -> None:
    difference = {"low": low, "value": value, "high": high}
    comparison(document, 1, "mass0.9", "kept50")["difference"] = difference
    found = line_of(section(results, document), RIVALS, "| mass 0.9 | density | MACs ")
    assert found == f"| mass 0.9 | density | MACs | -0.10 | {cell} | -0.10 |"


def test_tokens_kept_are_means_over_seeds_by_group(results: Path, document: Document) -> None:
    lines = section(results, document)
    assert "- mass 0.9, by digit size: 31.0 (small), 41.0 (large)" in lines
    document["evaluations"]["student-1"]["strata"].pop()
    assert "- mass 0.9, by digit size: 31.0 (small), 41.0 (large)" in section(results, document)
    document["evaluations"]["student-0"]["strata"].pop()
    assert "- mass 0.9, by digit size: 31.0 (small), 42.0 (large)" in section(results, document)


def test_each_part_has_its_top1_and_changes_with_half_a_width(results: Path, document: Document) -> None:
    for name, value in (("student-0", -0.3), ("epoch-0", -0.8)):
        changed = row_of(document["evaluations"][name], "density0.28")["top1_change"]
        changed |= {"low": value - 0.8, "value": value, "high": value + 0.4}
    lines = section(results, document)
    rows = table(lines, ABLATION)
    assert len(rows) == 8
    student = line_of(lines, ABLATION, "| dense/sparse, distilled |").split(" | ")
    assert (student[1], student[3]) == ("97.3 %", "-0.3 ± 0.6")
    assert not any("–" in cell for cell in student)
    epoch = line_of(lines, ABLATION, "| the same, alternating epochs |").split(" | ")
    assert (epoch[1], epoch[3]) == ("50.0 %", "-0.8 ± 0.6")
    assert [cell.strip(" |") for cell in epoch[-3:]] == ["–"] * 3
    assert line_of(lines, ABLATION, "| plain weights, the teacher's |").split(" | ")[1] == "96.9 %"
    assert line_of(lines, ABLATION, "| plain weights, trained on as long |").split(" | ")[1] == "97.4 %"


def test_what_figures_are_of_is_evaluated() -> None:
    """A row that no training is asked for would be a dash throughout."""
    densities = [f"density{density}" for density in demo_training.TOLD]
    brief = {*densities, *(point.name for point in demo_training.BRIEF.points)}
    assert set(accuracy_figures._PART_ROWS) <= brief
    assert set(accuracy_figures._SHOWN_MASSES) <= {point.name for point in demo_training.MASSES}
    assert set(demo_training.BRIEF.points) <= set(demo_training.MASSES)
    assert set(demo_training.TOLD) <= set(demo_training.DENSITIES)


def test_shift_is_mean_and_deviation_over_seeds(results: Path, document: Document) -> None:
    for seed, (value, kept, ratio, dense) in enumerate(((-1.0, 30, 2, 90), (-2.0, 33, 3, 92), (-3.0, 36, 4, 94))):
        heavy = document["shift"][f"student-{seed}"]["heavy"]
        heavy["dense_top1_percent"] = dense
        heavy["mass"] |= {
            "change": {"low": value, "value": value, "high": value},
            "kept_mean": kept,
            "mac_ratio": ratio,
        }
    lines = section(results, document)
    rows = table(lines, SHIFT)
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in CANVASES for _ in range(2)]
    assert rows[2] == "| heavy | 92.0 % | density | 3 | -0.75 ± 0.00 | 60.0 | 1.50 × |"
    assert rows[3] == "| heavy | 92.0 % | mass | 3 | -2.00 ± 1.00 | 33.0 | 3.00 × |"
    told = " ".join(lines)
    assert "`sait-deploy tune --max-drop 1` chose a density and a mass on 2,500 images of light clutter" in told
    assert "(density 0.4, 0.4, 0.4; mass 0.92, 0.92, 0.92)" in told


@pytest.mark.parametrize(
    ("untuned", "shares", "ending"),
    [
        ((1,), "mass 0.92, none, 0.92", "| mass | 2 | -0.25 ± 0.00 | 30.0 | 2.50 × |"),
        ((0, 1), "mass none, none, 0.92", "| mass | 1 | – | – | – |"),
        ((0, 1, 2), "mass none, none, none", "| mass | 0 | – | – | – |"),
    ],
)
def test_seeds_without_a_tuned_point_are_named(
    results: Path, document: Document, untuned: tuple[int, ...], shares: str, ending: str
) -> None:
    for seed in untuned:
        shift = document["shift"][f"student-{seed}"]
        shift["tuned"]["mass"] = {"outcome": "nothing passes", "message": "no point keeps to it"}
        for name in CANVASES:
            del shift[name]["mass"]
    lines = section(results, document)
    rows = table(lines, SHIFT)
    assert f"{shares})" in " ".join(lines)
    assert [row.endswith(ending) for row in rows] == [False, True] * 3
    assert all("| density | 3 | -0.75" in row for row in rows[::2])
