"""How long a run takes on several GPUs: operations over what they can do, and what is sent over the links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keystep.errors import require
from keystep.plan.cost import Cost
from keystep.plan.hardware import Machine
from keystep.plan.layout import Layout, layouts
from keystep.plan.model import ModelPlan
from keystep.plan.workload import Workload
from keystep.ranks.plans import find_plan
from keystep.what import Guidance


@dataclass(frozen=True)
class Forecast:
    """A run on so many GPUs; figures of an evaluation are means over the run.

    Attributes:
        layout: how the video is spread.
        num_gpus: GPUs.
        flops: operations of one evaluation, on the busiest GPU.
        collectives: of one evaluation.
        sent_bytes: of one evaluation, by the GPU that sends most.
        compute_s: seconds of computation in one evaluation.
        exchange_s: seconds of communication in one evaluation; nothing is overlapped.
        run_s: seconds of the whole run, with what is outside the denoiser.
    """

    layout: str
    num_gpus: int
    flops: float
    collectives: float
    sent_bytes: float
    compute_s: float
    exchange_s: float
    run_s: float


@dataclass(frozen=True)
class Scaling:
    """Forecasts of runs of one workload.

    Args:
        workload: the run.
        model: what one evaluation takes.
        machine: on which it runs.
    """

    workload: Workload
    model: ModelPlan
    machine: Machine

    def layouts(self, num_gpus: int) -> list[Layout]:
        """The ways to use so many GPUs.

        Raises:
            ValueError: more GPUs than a frame has tokens, or none.
        """
        most = self.model.tokens_per_frame
        require(1 <= num_gpus <= most, "gpus", num_gpus, f"1 to {most}, the tokens of a latent frame")
        return layouts(num_gpus)

    def forecast(self, run: Sequence[Cost], layout: Layout) -> Forecast:
        """A run whose evaluations have these costs."""
        guidance = Guidance.parse(self.workload.spec.guidance)
        exchanges = set(find_plan(self.workload.spec.name).attention.values())
        traffic = [layout.traffic(cost, guidance, exchanges) for cost in run]
        share = layout.share(self.model.tokens_per_frame)
        flops = share * sum(cost.flops for cost in run) / len(run)
        collectives = sum(each.num_collectives for each in traffic) / len(run)
        sent_bytes = self.workload.dtype.itemsize * sum(each.num_values for each in traffic) / len(run)
        machine = self.machine
        compute_s = flops / (machine.peak * machine.efficiency)
        exchange_s = collectives * machine.link.latency + sent_bytes / machine.link.bandwidth
        run_s = len(run) * (compute_s + exchange_s) + machine.other
        return Forecast(
            layout.name, layout.num_gpus, flops, collectives, sent_bytes, compute_s, exchange_s, run_s
        )
