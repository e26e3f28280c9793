"""Ray's answers as the batch understands them, without a cluster: what is asked, and what counts."""

from types import SimpleNamespace

import pytest

from keystep.batch import cluster
from keystep.batch.workers import Lost, Made, Ready, Worker
from tests.batch import jobs


class UnavailableError(Exception):
    pass


class DiedError(Exception):
    pass


class FakeRay:
    """Runs actors at once; `answers` are what goes wrong with the first questions, None for nothing."""

    def __init__(self, answers=()):
        self.exceptions = SimpleNamespace(
            ActorUnavailableError=UnavailableError, RayError=(UnavailableError, DiedError)
        )
        self.answers = list(answers)
        self.num_asked = 0
        self.killed = []
        self.asked_for = {}

    def init(self, **options):
        self.options = options

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, cls):
        assert cls is Worker
        return SimpleNamespace(options=self._options)

    def _options(self, **options):
        self.asked_for = options
        return SimpleNamespace(remote=self._start)

    def _start(self, job):
        worker = Worker(job)

        def ask(function):
            def call(*arguments):
                self.num_asked += 1
                wrong = self.answers.pop(0) if self.answers else None
                return (wrong, None if wrong is DiedError else function(*arguments), self.num_asked)

            return SimpleNamespace(remote=call)

        return SimpleNamespace(load=ask(worker.load), make=ask(worker.make))

    def wait(self, answers, num_returns, timeout):
        return answers[:num_returns], answers[num_returns:]

    def get(self, answer):
        wrong, report, _ = answer
        if wrong is not None:
            raise wrong("said\nin many lines")
        return report

    def kill(self, actor):
        self.killed.append(actor)

    def shutdown(self):
        self.options = None


@pytest.fixture
def hire(monkeypatch, tmp_path):
    def call(answers=(), num=1, **options):
        ray = FakeRay(answers)
        monkeypatch.setattr(cluster, "find_spec", lambda _: True)
        monkeypatch.setattr(cluster, "import_module", lambda _: ray)
        return ray, cluster.RayWorkers(jobs.Quick(tmp_path), num, "auto", backoff=jobs.QUICK, **options)

    return call


def wait(workers):
    events = []
    for _ in range(50):
        events = events or workers.wait(0.2)
    return events


def test_an_unavailable_actor_is_asked_again_and_makes_nothing_twice(hire, tmp_path):
    ray, workers = hire([UnavailableError, UnavailableError, None, UnavailableError, UnavailableError])
    workers.start(0)
    [(worker, event)] = wait(workers)
    assert worker == 0
    assert isinstance(event, Ready)
    assert ray.num_asked == 3
    item = jobs.items(1)[0]
    workers.submit(0, item)
    [(_, event)] = wait(workers)
    assert isinstance(event, Made)
    assert ray.num_asked == 6
    assert [name for _, name in jobs.read_made(tmp_path)] == [item.id]
    workers.stop()
    assert len(ray.killed) == 1


def test_a_batch_does_not_count_it_as_a_try(hire, tmp_path):
    _, workers = hire([None, *[UnavailableError] * 4])
    diary = jobs.Diary()
    jobs.run(tmp_path, jobs.items(3), workers, diary, max_tries=1)
    assert [record.tries for record in diary.finished] == [1, 1, 1]
    jobs.check_whole(tmp_path, jobs.items(3))


def test_a_dead_actor_is_lost_and_no_more_asked(hire):
    ray, workers = hire([None, DiedError])
    workers.start(0)
    wait(workers)
    workers.submit(0, jobs.items(1)[0])
    assert wait(workers) == [(0, Lost("DiedError: said"))]
    workers.end(0)
    assert ray.num_asked == 2


def test_actors_are_never_restarted_by_ray_and_have_a_core_or_a_gpu_each(hire):
    ray, workers = hire(num=None)
    assert workers.num == 2
    assert ray.asked_for == {"num_cpus": 1, "num_gpus": 0, "max_restarts": 0, "max_task_retries": 0}


def test_more_workers_than_the_cluster_takes_are_refused(hire):
    with pytest.raises(ValueError, match="--workers: given 3, the cluster at auto has 2 CPU"):
        hire(num=3)
    with pytest.raises(ValueError, match="has 0 GPU"):
        hire(num=None, needs="GPU")


def test_without_ray_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"\.\[ray\]"):
        cluster.RayWorkers(jobs.Quick(tmp_path), 1, "auto")
