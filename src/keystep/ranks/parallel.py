"""`keystep.parallel`: one video on several processes."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import nn

from keystep.engine.agreement import RANKS, Agreement
from keystep.engine.checks import check_not_parallel
from keystep.engine.restore import replace_attribute
from keystep.engine.session import session_of
from keystep.engine.target import find_transformers
from keystep.models.registry import find_spec
from keystep.models.spec import ModelSpec
from keystep.ranks.group import Group, Traffic
from keystep.ranks.groups import check_alike, choose_degrees, split_world, world
from keystep.ranks.guidance import SplitGuidance
from keystep.ranks.noise import SharedStep
from keystep.ranks.plans import find_plan
from keystep.ranks.sharding import Sharding


class Parallel:
    """A pipeline whose videos are made by several processes together.

    Every process holds the whole pipeline and calls it with the same arguments; each gets the whole result.

    Args:
        target: a diffusers pipeline, or a bare transformer.
        ulysses: ranks among which the tokens of a video are dealt out, a divisor of the ranks that were
            launched; further ranks make videos of their own, so many at a time. None = all ranks.
        cfg: 1, or 2 for a group for each guidance branch.
        spec: where the parts of an unknown model are; None = look the transformer's class up.
        check: compare all decisions of the ranks, and say which differ; one more collective each.

    Attributes:
        group: the ranks that make a video together; `group.traffic` is what this one has sent to them.

    Raises:
        ValueError: nothing was launched, the ranks do not divide, they run different versions, or there is no
            plan for the model.
    """

    def __init__(
        self,
        target: Any,
        ulysses: int | None = None,
        cfg: int = 1,
        *,
        spec: ModelSpec | None = None,
        check: bool = False,
    ) -> None:
        self.target, self.is_checked = target, check
        self.models = find_transformers(target)
        self.spec = spec or find_spec(next(iter(self.models.values())), target)
        everyone = world()
        for name, module in self.models.items():
            check_not_parallel(name, module)
        self.ulysses, self.cfg = choose_degrees(ulysses, cfg, everyone.size)
        sizes = {
            f"{name}.{field}": value
            for name, module in self.models.items()
            for field, value in dict(getattr(module, "config", {})).items()
            if not field.startswith("_")
        }
        self._plan = find_plan(self.spec.name) if self.ulysses > 1 else None
        check_alike(everyone, {"ulysses": self.ulysses, "cfg": self.cfg, **sizes})
        self.group: Group | None = None
        self._everyone = everyone
        self._scheduler: Any = getattr(target, "scheduler", None)
        self._step: SharedStep | None = None
        self._stack = ExitStack()

    @property
    def traffic(self) -> Traffic:
        """What this rank has sent to those it shares a video with."""
        assert self.group is not None, "attached"
        return self.group.traffic

    def attach(self) -> None:
        """Share the pipeline until `close`. All ranks must call it."""
        for module in self.models.values():
            check_free(module)
        groups = split_world(self._everyone, self.ulysses, self.cfg)
        self.group = groups.video
        with ExitStack() as stack:
            stack.callback(groups.close)
            split = None
            if groups.guidance is not None:
                split = SplitGuidance(groups.guidance, groups.sequence.rank, self.target, self.spec)
            agreement = Agreement(groups.video, self.is_checked, split)
            session = session_of(self.target)
            if session is not None:
                agreement.check_policy(session.outline)
            for module in self.models.values():
                if split is not None:  # its hooks come first: the tokens of fewer rows are dealt out
                    split.attach(stack, module)
                if self._plan is not None:
                    Sharding(groups.sequence, self.spec, self._plan, module).attach(stack)
                replace_attribute(stack, module, RANKS, agreement)
            if self._scheduler is not None:
                self._step = SharedStep(self._scheduler.step, groups.video, agreement.close_evaluation)
                replace_attribute(stack, self._scheduler, "step", self._step)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Restore the pipeline.

        Raises:
            RuntimeError: it was accelerated after `attach`, and still is.
        """
        if self._step is not None and self._scheduler.step is not self._step:
            raise RuntimeError(
                "parallel: keystep.enable() came after it and is in force still; call keystep.disable(pipe) "
                "first"
            )
        self._release()

    def _release(self) -> None:
        self._stack.close()
        self._step = None

    def __enter__(self) -> Parallel:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        if self.group is not None and self.group.failures is not None:
            self.group.failures.report(error)
        self._release()


def check_free(module: nn.Module) -> None:
    """Raise if a transformer is shared already."""
    if RANKS in vars(module):
        raise ValueError("parallel: the pipeline is shared already; leave the first keystep.parallel()")


def parallel(
    target: Any,
    ulysses: int | None = None,
    cfg: int = 1,
    *,
    spec: ModelSpec | None = None,
    check: bool = False,
) -> Parallel:
    """Let several processes make one video together inside a `with` block; all of them call this.

    Arguments and errors as of `Parallel`, which it returns: enter it, or call its `attach()` and `close()`.
    """
    return Parallel(target, ulysses, cfg, spec=spec, check=check)
