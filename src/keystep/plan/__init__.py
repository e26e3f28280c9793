"""What a run will cost, found without weights: tokens, memory and FLOPs from a model on the meta device."""

from keystep.plan.blueprint import Blueprint, Video
from keystep.plan.hardware import GPUS, LINKS, USUAL_LINK, Link, Machine
from keystep.plan.layout import Layout
from keystep.plan.method import MethodPlan, plan_method
from keystep.plan.model import ModelPlan, plan_model
from keystep.plan.released import BLUEPRINTS
from keystep.plan.scaling import Forecast, Scaling
from keystep.plan.workload import Workload

__all__ = [
    "BLUEPRINTS",
    "GPUS",
    "LINKS",
    "USUAL_LINK",
    "Blueprint",
    "Forecast",
    "Layout",
    "Link",
    "Machine",
    "MethodPlan",
    "ModelPlan",
    "Scaling",
    "Video",
    "Workload",
    "plan_method",
    "plan_model",
]
