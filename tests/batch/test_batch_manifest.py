"""What is on disk is whole, and agrees."""

import errno
import json
import os
from dataclasses import replace

import pytest

from keystep.batch import Figures, Item, Manifest, Product
from tests.batch import jobs

FIGURES = Figures(
    loop_s=1.5, total_s=2.0, num_evaluations=3, key_steps=(1, 3), peak_cache_bytes=7, notes=("n",)
)
A = Item(id="a", prompt="a cat", method="adacache", options={"codebook": {"0.1": 2}}, seconds=2)
B = replace(A, id="b")


def fill(folder, *items):
    with Manifest(folder, jobs.SETTINGS) as manifest:
        for item in items:
            manifest.add(item, Product(item.id.encode(), FIGURES), "here:1", 1)


def read(folder):
    with Manifest(folder, jobs.SETTINGS) as manifest:
        return manifest.records


def test_a_record_comes_back_as_it_went(tmp_path):
    fill(tmp_path, A)
    record = read(tmp_path)["a"]
    line = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert (record.prompt, record.options, record.seconds) == (A.prompt, A.options, 2.0)
    assert (record.key_steps, record.notes, record.peak_cache_bytes) == ((1, 3), ("n",), 7)
    assert (line["id"], line["worker"], line["tries"], line["file"]) == ("a", "here:1", 1, "videos/a.mp4")
    assert line["settings"] == jobs.SETTINGS


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")])
def test_a_line_without_its_file_is_made_again_once(tmp_path, damage):
    fill(tmp_path, A, B)
    damage(tmp_path / "videos" / "a.mp4")
    with Manifest(tmp_path, jobs.SETTINGS) as manifest:
        assert manifest.choose_missing([A, B]) == [A]
    fill(tmp_path, A)
    lines = [json.loads(line)["id"] for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert sorted(lines) == ["a", "b"]


def test_a_file_without_its_line_is_made_again(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"old")
    fill(tmp_path, A)
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == b"a"


@pytest.mark.parametrize("now", [replace(A, seed=1), replace(A, options={})])
def test_the_same_id_of_something_else_is_refused(tmp_path, now):
    fill(tmp_path, A)
    with Manifest(tmp_path, jobs.SETTINGS) as manifest, pytest.raises(ValueError, match="another id"):
        manifest.choose_missing([now])


def test_other_settings_are_refused(tmp_path):
    fill(tmp_path, A)
    with (
        Manifest(tmp_path, {"model": "other"}) as manifest,
        pytest.raises(ValueError, match="settings.*other"),
    ):
        manifest.choose_missing([A])


def test_a_broken_line_is_named(tmp_path):
    fill(tmp_path, A)
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"id": 3}\n' + path.read_bytes())
    with pytest.raises(ValueError, match="line 1 .*remove the line"):
        read(tmp_path)
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert list(read(tmp_path)) == ["a"]  # and the folder is not locked by the failure


def test_two_batches_in_one_folder_are_refused(tmp_path):
    with Manifest(tmp_path, {}), pytest.raises(ValueError, match="another batch"):
        read(tmp_path)
    assert read(tmp_path) == {}


@pytest.mark.parametrize("num_syncs", [0, 1])  # the disk fills up at the file, or at its line
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, num_syncs):
    fill(tmp_path, A)
    before = (tmp_path / "manifest.jsonl").read_bytes()
    left = iter([None] * num_syncs)

    def sync(_):
        if next(left, "none") == "none":
            raise OSError(errno.ENOSPC, "No space left on device")

    with Manifest(tmp_path, jobs.SETTINGS) as manifest:
        monkeypatch.setattr(os, "fsync", sync)
        with pytest.raises(OSError, match="No space"):
            manifest.add(B, Product(b"b", FIGURES), "here:1", 1)
        monkeypatch.undo()
        assert (tmp_path / "manifest.jsonl").read_bytes() == before
        assert {path.name for path in (tmp_path / "videos").iterdir()} <= {
            "a.mp4",
            "b.mp4",
        }  # b whole, or not at all
        manifest.add(B, Product(b"b", FIGURES), "here:1", 1)
    assert list(read(tmp_path)) == ["a", "b"]
