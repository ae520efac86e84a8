from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from haversack.datasets import labels
from haversack.errors import InputError, NotFound

NAMES = ["a/x.png", "b/y.png", "a/z.png"]


def nothing(name: str) -> bytes:
    raise NotFound(f"There is no {name}.", status=404)


def table(folder: Path, text: str, name: str = "labels.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_folders_are_classes() -> None:
    found = labels.labels_for(NAMES, "folder", nothing)
    assert (found.classes, found.values.tolist()) == (("a", "b"), [0, 1, 0])


@pytest.mark.parametrize("key", ["x.png", "x", "a/x.png"])
def test_images_are_found_by_name_file_name_or_stem(tmp_path: Path, key: str) -> None:
    path = table(tmp_path, f"image,kind\n{key},cat\ny,dog\nz,cat\n")
    found = labels.labels_for(NAMES, path, nothing)
    assert (found.classes, found.values.tolist()) == (("cat", "dog"), [0, 1, 0])


def test_whole_numbers_stay_whole_numbers(tmp_path: Path) -> None:
    found = labels.labels_for(NAMES, table(tmp_path, "image,age\nx,40\ny,7\nz,0\n"), nothing)
    assert (found.values.dtype, found.values.tolist()) == (np.int64, [40, 7, 0])


def test_other_numbers_are_float32(tmp_path: Path) -> None:
    found = labels.labels_for(NAMES, table(tmp_path, "image,age\nx,40\ny,.5\nz,0\n"), nothing)
    assert (found.values.dtype, found.values.tolist()) == (np.float32, [40, 0.5, 0])


def test_several_columns_are_vectors(tmp_path: Path) -> None:
    found = labels.labels_for(NAMES, table(tmp_path, "image,p,q\nx,1,0\ny,0,1\nz,1,1\n"), nothing)
    assert found.values.tolist() == [[1, 0], [0, 1], [1, 1]]


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, "n\timage\twho\n1\tx\tann\n2\ty\tbob\n3\tz\tann\n", "labels.tsv")
    assert labels.labels_for(NAMES, (path, "image", "who"), nothing).classes == ("ann", "bob")


def test_table_of_the_data_set_is_read_from_it() -> None:
    found = labels.labels_for(NAMES, "labels.csv", {"labels.csv": b"image,v\nx,1\ny,2\nz,3\n"}.__getitem__)
    assert found.values.tolist() == [1, 2, 3]


def test_dict_and_function() -> None:
    assert labels.labels_for(NAMES, {"x": 1.5, "y": 2, "z": 3}, nothing).values.tolist() == [1.5, 2, 3]
    assert labels.labels_for(NAMES, lambda name: name[0] == "a", nothing).values.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,v\nx,1\n", "2 of 3 images are not in .*labels.csv, such as b/y.png, a/z.png"),
        ("image\nx\n", "no column of labels"),
        ("", "no column of labels"),
        ("image,v\nx\n", "Line 2 of .* has 1 columns"),
        ("image,v\nx,1\nx,2\n", "two labels for x, the second in line 3"),
        ("image,p,q\nx,1,yes\ny,1,1\nz,1,1\n", "not all numbers: x has 1, yes"),
    ],
)
def test_tables_that_do_not_label_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        labels.labels_for(NAMES, table(tmp_path, text), nothing)


def test_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'label'\. Its columns are image, v"):
        labels.labels_for(NAMES, (table(tmp_path, "image,v\nx,1\n"), "image", "label"), nothing)


def test_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("größe,v".encode("latin-1"))
    with pytest.raises(InputError, match="not text in UTF-8"):
        labels.labels_for(NAMES, str(tmp_path / "l.csv"), nothing)


def test_labels_of_several_kinds_are_refused() -> None:
    with pytest.raises(InputError, match=r"not of one type: a/x\.png has 1, b/y\.png has 'dog'"):
        labels.labels_for(NAMES, {"x": 1, "y": "dog", "z": 2}, nothing)
