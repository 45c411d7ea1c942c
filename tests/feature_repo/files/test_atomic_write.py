"""Files and folders that are written beside their place and renamed."""

import os
from pathlib import Path

import pytest

from feature_repo.errors import ConflictError
from feature_repo.files.atomic_write import replace_atomically, require_new_folder, write_text
from tests.small_disk import no_file_longer_than


def test_a_file_appears_when_the_block_ends_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "model.bin"
    for content in (b"first", b"second"):
        with replace_atomically(target) as unfinished:
            unfinished.write_bytes(content)
            assert not target.exists() or target.read_bytes() == b"first"
        assert target.read_bytes() == content
    assert [file.name for file in target.parent.iterdir()] == ["model.bin"]


def test_an_exception_leaves_the_old_file_and_removes_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")

    def write_half() -> None:
        with replace_atomically(target) as unfinished:
            unfinished.write_bytes(b"ne")
            raise OSError("no space left on disk")

    with pytest.raises(OSError, match="disk"):
        write_half()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.bin", b"old")]


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / ".export.unfinished"
    left.mkdir()
    (left / "half").touch()
    with replace_atomically(tmp_path / "export") as unfinished:
        assert not unfinished.exists()
        unfinished.mkdir()
        (unfinished / "whole").touch()
    assert [file.name for file in (tmp_path / "export").iterdir()] == ["whole"]


def test_a_new_folder_may_be_missing_or_empty_and_nothing_else(tmp_path: Path) -> None:
    require_new_folder(tmp_path / "missing")
    require_new_folder(tmp_path)
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConflictError, match="exists already; name a new folder"):
            require_new_folder(taken)


def test_a_full_disk_is_an_error_that_names_the_file_which_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    write_text(file, "before")
    with no_file_longer_than(1_000), pytest.raises(OSError, match=r"figures\.json"):
        write_text(file, "x" * 10_000)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_text_is_written_to_a_pipe_as_it_is() -> None:
    reader, writer = os.pipe()
    write_text(Path(f"/dev/fd/{writer}"), "é")
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == "é".encode()
