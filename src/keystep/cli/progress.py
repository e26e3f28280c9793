"""Progress bars on stderr: one for the whole command, one for the generation that runs."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keystep.cli.console import err_console
from keystep.cli.ranks import is_first


class GenerationProgress:
    """Context manager with bars for a known number of generations and the steps of the present one.

    Args:
        num_generations: how many there will be; a single one gets no overall bar.
    """

    def __init__(self, num_generations: int) -> None:
        console = err_console()
        self._bars = Progress(
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal or not is_first(),  # a log file wants no bars
            transient=True,
        )
        is_single = num_generations == 1
        self._overall = self._bars.add_task("generations", total=num_generations, visible=not is_single)
        self._steps = self._bars.add_task("", total=None)
        self._has_begun = False

    def begin_generation(self, label: str) -> None:
        """A generation begins: the one before it is done."""
        if self._has_begun:
            self._bars.advance(self._overall)
        self._has_begun = True
        self._bars.reset(self._steps, description=label, total=None)

    def end_step(self, num_done: int, num_planned: int) -> None:
        """A scheduler step is done."""
        self._bars.update(self._steps, completed=num_done, total=num_planned)

    def __enter__(self) -> GenerationProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
