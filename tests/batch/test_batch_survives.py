"""Two hundred items, whatever is killed: each finished once, manifest and files agree, nothing stays."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.batch import jobs

NUM = 200
KILL_AFTER = (30, 80, 130)
INTERRUPT_AFTER = 180
SLOW_S = 0.05  # 50 items of one worker last longer than a cluster needs to start another


def test_three_workers_are_killed(tmp_path):
    wanted, killer = jobs.items(NUM), jobs.Killer(tmp_path, KILL_AFTER)
    diary = jobs.Diary(killer)
    jobs.run(tmp_path, wanted, jobs.local(tmp_path, pause_s=0.01), diary)
    tries = {line["id"]: line["tries"] for line in jobs.check_whole(tmp_path, wanted)}
    assert len(set(killer.killed)) == len(KILL_AFTER)
    # What was retried was in the hands of a killed worker, and no try was counted for anything else.
    assert 1 <= len(diary.retried) <= len(KILL_AFTER)
    assert all("SIGKILL" in reason for _, reason in diary.retried)
    assert Counter(name for name, _ in diary.retried) == Counter(
        {name: num - 1 for name, num in tries.items() if num > 1}
    )
    for name, num in Counter(name for _, name in jobs.read_made(tmp_path)).items():
        assert num <= tries[name]  # a killed worker may not have begun
    assert not any(map(jobs.is_alive, jobs.read_pids(tmp_path)))


def test_three_actors_of_a_ray_cluster_are_killed_and_the_batch_is_interrupted(tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from keystep.batch.cluster import RayWorkers

    def interrupt(finished):
        if len(finished) == INTERRUPT_AFTER:
            raise KeyboardInterrupt

    wanted, killer = jobs.items(NUM), jobs.Killer(tmp_path, KILL_AFTER)
    diary, again = jobs.Diary(killer, interrupt), jobs.Diary()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        hire = partial(RayWorkers, jobs.Quick(tmp_path, SLOW_S), 2, cluster.address, backoff=jobs.QUICK)
        with pytest.raises(KeyboardInterrupt):
            jobs.run(tmp_path, wanted, hire(), diary)
        jobs.run(tmp_path, wanted, hire(), again)
    finally:
        cluster.shutdown()
    assert [len(diary.finished), len(again.finished)] == [INTERRUPT_AFTER, NUM - INTERRUPT_AFTER]
    jobs.check_whole(tmp_path, wanted)
    assert len(set(killer.killed)) == len(KILL_AFTER)
    assert 1 <= len(diary.retried) <= len(KILL_AFTER)
    assert all(record.tries <= 2 for record in [*diary.finished, *again.finished])
    assert not any(map(jobs.is_alive, jobs.read_pids(tmp_path)))


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_the_whole_batch_is_interrupted_and_resumed(tmp_path, blow):
    manifest = tmp_path / "out" / "manifest.jsonl"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.batch.jobs", str(tmp_path), str(NUM)]
    with subprocess.Popen(
        command,
        cwd=root,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests behind a "&" ignore it
    ) as batch:
        wait_until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") >= 50)
        # Ctrl-C reaches the whole group; kill -9 is for the one that cannot say goodbye.
        (os.killpg if blow == signal.SIGINT else os.kill)(batch.pid, blow)
        assert batch.wait(30) != 0
        # Nobody is left, though one was in the middle of something that takes minutes.
        wait_until(lambda: not any(map(jobs.is_alive, jobs.read_pids(tmp_path))))
        assert batch.stderr is not None
        assert batch.stderr.read().count(b"Traceback") <= (blow == signal.SIGINT)  # that of the batch alone
    before = manifest.read_bytes()
    assert 50 <= before.count(b"\n") < NUM
    manifest.write_bytes(before + b'{"id": "cut o')  # as a crash of the machine leaves it
    (tmp_path / "out" / "videos" / ".000-abc.mp4").write_bytes(b"half")
    diary, wanted = jobs.Diary(), jobs.items_with_a_long_one(NUM)
    jobs.run(tmp_path, wanted, jobs.local(tmp_path), diary)
    assert len(diary.finished) == NUM - before.count(b"\n")
    jobs.check_whole(tmp_path, wanted)
    assert manifest.read_bytes().startswith(before)


def wait_until(is_true, limit_s=30.0):
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
