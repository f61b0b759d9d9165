"""Files of class names: the forms that are read, what is cleaned and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.labels import read_labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "cat\n  a dog \n\nzebra\n"),
        ("labels.txt", "\ufeffcat\r\na dog\r\nzebra"),
        ("labels.json", '["cat", "a dog", "zebra"]'),
        ("labels.json", '\ufeff{"2": "zebra", "0": "cat", "1": "a dog"}'),
        ("labels.json", '{"0": ["n01", "cat"], "1": ["n02", "a dog"], "2": ["n03", "zebra"]}'),
        ("labels.txt", '["cat", "a dog", "zebra"]'),
        ("class_to_idx.json", '{"a dog": 1, "cat": 0, "zebra": 2}'),
        ("config.json", '{"architectures": [], "id2label": {"0": "cat", "1": "a dog", "2": "zebra"}}'),
        ("config.json", '{"architecture": "deit", "label_names": ["cat", "a dog", "zebra"]}'),
    ],
)
def test_names_are_read(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_labels(path, 3) == ("cat", "a dog", "zebra")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("labels.txt", b"cat\nd\x1b[31mog\nzebra\n", "class 1"),
        ("labels.txt", b"cat\nd\x00og\nzebra\n", "cannot be printed"),
        ("labels.txt", b"\xff\xfec\x00a\x00t\x00", "cannot be read"),
        ("labels.txt", b"cat\ndog\n", "names 2 classes, the model has 3"),
        ("labels.json", b'"cat"', "no JSON list or object"),
        ("labels.json", b"cat\ndog\nzebra\n", "no JSON list or object"),
        ("labels.json", b'["cat", 1, "zebra"]', "1 for a name"),
        ("labels.json", b'["cat", "", "zebra"]', "class 1"),
        ("labels.json", b'{"1": "cat", "2": "dog", "3": "zebra"}', "from 0 to 2"),
        ("labels.json", b'{"cat": 1, "dog": 2, "zebra": 3}', "from 0 to 2"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=match) as caught:
        read_labels(path, 3)
    assert str(path) in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_labels(tmp_path / "none.txt", 3)
