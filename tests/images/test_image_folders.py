"""Folders of images: which files are listed, and which classes their subfolders are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from sait_deploy.errors import ImageError
from sait_deploy.images.preprocess import ImageSet, list_images, open_image


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_class_folders_give_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "b/2.JPG", "b/1.png", "a/z.webp", "a/notes.txt", "a/.hidden.png", ".cache/x.png", "readme.md")
    (tmp_path / "ab").mkdir()
    found = list_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == ["a/z.webp", "b/1.png", "b/2.JPG"]
    assert found.classes == ("a", "ab", "b") and found.labels == (0, 2, 2)


@pytest.mark.parametrize("extra", ["top.png", "a/deeper/x.tiff"])
def test_other_layouts_have_no_classes(tmp_path: Path, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a/x.png", extra)
    expected = tuple(sorted([Path("a/x.png"), Path(extra)]))
    monkeypatch.chdir(tmp_path)
    assert list_images(Path()) == ImageSet(expected, None, None)
    assert list_images(tmp_path).paths == tuple(tmp_path / path for path in expected)


def test_suffixes_are_those_that_pillow_reads(tmp_path: Path) -> None:
    names = ["a.jfif", "b.GIF", "c.pgm", "d.webp", "e.jpe", "f.pnm", "g.tif"]
    kinds = {
        ".jfif": "JPEG",
        ".gif": "GIF",
        ".pgm": "PPM",
        ".webp": "WEBP",
        ".jpe": "JPEG",
        ".pnm": "PPM",
        ".tif": "TIFF",
    }
    if features.check("avif"):
        names.append("h.avif")
        kinds[".avif"] = "AVIF"
    pixels = np.full((8, 8, 3), 200, np.uint8)
    for name in names:
        Image.fromarray(pixels).save(tmp_path / name, format=kinds[Path(name).suffix.lower()])
    _touch(tmp_path, "x.heic", "y.HEIC", "z.txt", "no_suffix", "measured.pfm")
    found = list_images(tmp_path)
    assert [path.name for path in found.paths] == names
    assert found.others == {".heic": 2, ".txt": 1, "": 1, ".pfm": 1}
    for path in found.paths:
        np.testing.assert_allclose(np.asarray(open_image(path)), pixels, atol=3)


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    _touch(tmp_path, "x.heic", "y.heic")
    with pytest.raises(ImageError) as refused:
        list_images(tmp_path)
    assert refused.value.hint.endswith("and found 2 .heic")


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    _touch(tmp_path, ".odd")
    assert list_images(tmp_path / ".odd") == ImageSet((tmp_path / ".odd",), None, None)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _touch(tmp_path, "elsewhere/x.png", "root/b/y.png")
    (tmp_path / "root/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/b/back").symlink_to(tmp_path / "root")
    found = list_images(tmp_path / "root")
    assert [path.name for path in found.paths] == ["x.png", "y.png"] and found.classes == ("a", "b")


def test_folders_without_images_are_errors(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ImageError, match=path.name) as error:
            list_images(path)
        assert error.value.hint
