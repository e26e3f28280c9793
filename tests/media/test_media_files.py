import os

import pytest

from keystep.media import atomic_path, check_writable, write_text


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "text")
    assert path.read_text() == "text"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt"
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_checking_creates_nothing(tmp_path):
    check_writable(tmp_path / "x" / "y" / "a.mp4")
    check_writable(tmp_path / "x" / "y", is_folder=True)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        check_writable(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        check_writable(tmp_path / "file", is_folder=True)
    with pytest.raises(ValueError, match="is not a folder"):
        check_writable(tmp_path / "file" / "a.mp4")


def test_missing_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(ValueError, match="no permission"):
        check_writable(tmp_path / "a.mp4")
