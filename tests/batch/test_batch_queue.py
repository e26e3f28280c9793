"""Who gets what, and when again: decisions alone."""

import pytest

from keystep.batch import Backoff, Item, Queue


def item(name, height=64):
    return Item(id=name, prompt="a", method="none", height=height)


def test_a_worker_stays_with_its_shape_and_workers_share_the_shapes_out():
    queue = Queue([item(f"{shape}{index}", shape) for index in range(4) for shape in (1, 2)])
    taken = {worker: [] for worker in (0, 1)}
    for _ in range(4):
        for worker, shapes in taken.items():
            shapes.append(queue.take(worker, 0.0).height)
    assert taken == {0: [1] * 4, 1: [2] * 4}
    assert queue.take(0, 0.0) is None


def test_a_worker_finishes_a_shape_before_it_begins_another():
    queue = Queue([item(name, height) for name, height in [("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1)]])
    heights = []
    while (taken := queue.take(0, 0.0)) is not None:
        heights.append(taken.height)
        queue.finish(taken)
    assert heights == [1, 1, 1, 2, 2]


def test_a_group_that_is_much_larger_gets_the_second_worker_too():
    queue = Queue([item("small", 2), *[item(name, 1) for name in "abcde"]])
    assert [queue.take(worker, 0.0).id for worker in (0, 1)] == ["a", "b"]


def test_a_worker_that_is_gone_is_at_no_shape():
    queue = Queue([*[item(name, 2) for name in "cde"], *[item(name, 1) for name in "ab"]])
    assert queue.take(0, 0.0).id == "c"
    queue.forget(0)
    assert queue.take(1, 0.0).id == "d"  # two are left of each; with worker 0 there it would be "a"


def test_a_failed_item_rests_twice_as_long_each_time_and_then_is_given_up():
    queue = Queue([item("a")], max_tries=3, backoff=Backoff(base_s=1.0, cap_s=1.5))
    now = 0.0
    for rest in (1.0, 1.5):
        a = queue.take(0, now)
        assert queue.num_left == 1
        assert queue.retry(a, now)
        assert queue.next_due() == now + rest
        assert queue.take(0, now + rest - 0.01) is None
        now += rest
    a = queue.take(0, now)
    assert queue.count_tries(a) == 3
    assert not queue.retry(a, now)
    assert queue.num_left == 0
    assert queue.next_due() is None


def test_waiting_never_overflows():
    assert Backoff(base_s=1.0, cap_s=60.0).delay(100_000) == 60.0


def test_less_than_one_try_is_refused():
    with pytest.raises(ValueError, match="tries"):
        Queue([], max_tries=0)
