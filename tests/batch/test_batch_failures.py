"""What goes wrong on a worker: tried again where that may help, set aside with its error where not."""

import json
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from keystep.batch import Backoff, LocalWorkers
from keystep.batch.workers import Lost, Ready
from tests.batch import jobs


def read_failures(folder):
    return [json.loads(line) for line in (folder / "out" / "failed.jsonl").read_text().splitlines()]


def test_poison_is_set_aside_and_the_rest_is_made(tmp_path):
    good = jobs.items(6)
    orders = ["die", "raise value", "raise runtime"]
    poison = [
        replace(item, id=f"p{item.id}", prompt=order)
        for item, order in zip(jobs.items(3), orders, strict=True)
    ]
    diary = jobs.Diary()
    jobs.run(tmp_path, [*poison, *good], jobs.local(tmp_path), diary, max_tries=2)
    jobs.check_whole(tmp_path, good)
    failures = {failure["id"]: failure for failure in read_failures(tmp_path)}
    assert (
        {name: failure["error"] for name, failure in failures.items()}
        == diary.set_aside
        == {
            "p000": "the worker was killed by SIGKILL",
            "p001": "ValueError: no such size",
            "p002": "RuntimeError: CUDA error",
        }
    )
    assert [failures[name]["tries"] for name in ("p000", "p001", "p002")] == [2, 1, 2]
    assert failures["p001"]["prompt"] == "raise value"
    # a process that raised something unforeseen is not trusted with another item
    assert len(jobs.read_pids(tmp_path)) >= 2 + 2


def test_poison_is_given_another_chance_by_the_next_run(tmp_path):
    poison = jobs.items(1, "raise value")
    jobs.run(tmp_path, poison, jobs.local(tmp_path, 1), jobs.Diary())
    assert (tmp_path / "out" / "failed.jsonl").exists()
    healed = jobs.items(1)
    jobs.run(tmp_path, healed, jobs.local(tmp_path, 1), jobs.Diary())
    jobs.check_whole(tmp_path, healed)
    assert not (tmp_path / "out" / "failed.jsonl").exists()


def test_dead_workers_are_replaced_ever_more_slowly(tmp_path):
    begin = time.monotonic()
    diary = jobs.Diary()
    jobs.run(
        tmp_path, jobs.items(1, "die"), jobs.local(tmp_path, 1), diary,
        max_tries=3, backoff=Backoff(base_s=0.4, cap_s=9.0),
    )  # fmt: skip
    assert time.monotonic() - begin > 0.4 + 0.8
    assert len(diary.retried) == 2
    assert len(jobs.read_pids(tmp_path)) == 3


def test_a_full_disk_of_a_worker_ends_the_batch(tmp_path):
    with pytest.raises(OSError, match="disk full .*1 items .* finished and whole, 1 are not; make room"):
        wanted = [*jobs.items(1), *[replace(item, id="x") for item in jobs.items(1, "raise full")]]
        jobs.run(tmp_path, wanted, jobs.local(tmp_path, 1), jobs.Diary())
    jobs.check_whole(tmp_path, jobs.items(1))
    assert not any(map(jobs.is_alive, jobs.read_pids(tmp_path)))


def test_a_full_disk_of_the_batch_ends_it(tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(28, "No space left on device")

    def fill_after_three(finished):
        if len(finished) == 3:
            monkeypatch.setattr("keystep.batch.manifest.os.fsync", fill)

    diary = jobs.Diary(fill_after_three)
    with pytest.raises(OSError, match="disk full .*3 items .*17 are not; make room"):
        jobs.run(tmp_path, jobs.items(20), jobs.local(tmp_path), diary)
    monkeypatch.undo()
    jobs.run(tmp_path, jobs.items(20), jobs.local(tmp_path), jobs.Diary())
    jobs.check_whole(tmp_path, jobs.items(20))


def test_a_job_that_can_never_be_loaded_ends_the_batch_at_once(tmp_path):
    workers = LocalWorkers(jobs.Unloadable(ValueError("no such model")), [{}])
    diary = jobs.Diary()
    with pytest.raises(ValueError, match="no such model"):
        jobs.run(tmp_path, jobs.items(2), workers, diary)
    assert diary.down == []


@pytest.mark.parametrize(
    ("error", "words"), [(None, "SIGKILL"), (RuntimeError("out of memory"), "out of memory")]
)
def test_workers_that_never_begin_end_the_batch_after_a_few_tries(tmp_path, error, words):
    diary = jobs.Diary()
    with pytest.raises(ChildProcessError, match=f"died 2 times.*{words}"):
        jobs.run(tmp_path, jobs.items(2), LocalWorkers(jobs.Unloadable(error), [{}]), diary, max_tries=2)
    assert len(diary.down) == 2
    assert diary.retried == []


def test_environments_are_set_before_the_job_is_loaded(tmp_path):
    workers = LocalWorkers(jobs.Quick(tmp_path), [{jobs.PLACE: "0"}, {jobs.PLACE: "1"}])
    wanted = jobs.items(8)
    jobs.run(tmp_path, wanted, workers, jobs.Diary())
    assert sorted((tmp_path / "places").read_text().split()) == ["0", "1"]


class Scripted:
    """Workers without processes: what each start comes to."""

    def __init__(self, num, begin):
        self.num = num
        self.starts = []
        self.is_stopped = False
        self._begin = begin
        self._events = []

    def start(self, worker):
        self.starts.append(time.monotonic())
        self._events.append((worker, self._begin(worker)))

    def end(self, worker):
        pass

    def submit(self, worker, item):
        raise AssertionError

    def wait(self, timeout_s):
        if not self._events:
            time.sleep(timeout_s)
        events, self._events = self._events, []
        return events

    def stop(self):
        self.is_stopped = True


def test_workers_of_different_versions_make_no_batch(tmp_path):
    workers = Scripted(2, lambda worker: Ready(f"host{worker}:1", (f"torch 2.{worker}",)))
    with pytest.raises(ValueError, match=r"host1:1 has torch 2\.1, another torch 2\.0"):
        jobs.run(tmp_path, jobs.items(4), workers, jobs.Diary())
    assert workers.is_stopped


def test_a_worker_that_dies_at_once_is_started_ever_more_slowly(tmp_path):
    workers = Scripted(1, lambda worker: Lost("gone"))
    with pytest.raises(ChildProcessError, match="died 3 times.*gone"):
        jobs.run(tmp_path, jobs.items(1), workers, jobs.Diary(), max_tries=3, backoff=Backoff(0.1, 9.0))
    first, second = (after - before for before, after in pairwise(workers.starts))
    assert first >= 0.1
    assert second >= 0.2
