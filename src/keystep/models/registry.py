"""The models keystep knows. A new model is one spec file and one line here."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from keystep.errors import unknown
from keystep.models.allegro import ALLEGRO
from keystep.models.cogvideox import COGVIDEOX, CONSISID
from keystep.models.cosmos import COSMOS
from keystep.models.easyanimate import EASYANIMATE
from keystep.models.hunyuan import FRAMEPACK, HUNYUAN, HUNYUAN15
from keystep.models.kandinsky import KANDINSKY5, KANDINSKY6
from keystep.models.latte import LATTE
from keystep.models.ltx import LTX, LTX2
from keystep.models.mochi import MOCHI
from keystep.models.motif import MOTIF
from keystep.models.opensora.spec import OPENSORA
from keystep.models.opensora_plan.spec import OPENSORA_PLAN
from keystep.models.sana_video import SANA_VIDEO
from keystep.models.spec import ModelSpec
from keystep.models.vchitect.spec import VCHITECT
from keystep.models.wan import ANIMATE, ANYFLOW, CHRONOEDIT, HELIOS, SKYREELS, VACE, WAN

SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        LATTE,
        COGVIDEOX,
        WAN,
        VACE,
        CHRONOEDIT,
        SKYREELS,
        ANIMATE,
        HELIOS,
        ANYFLOW,
        HUNYUAN,
        HUNYUAN15,
        FRAMEPACK,
        LTX,
        LTX2,
        MOCHI,
        ALLEGRO,
        EASYANIMATE,
        COSMOS,
        KANDINSKY5,
        KANDINSKY6,
        SANA_VIDEO,
        MOTIF,
        CONSISID,
        OPENSORA,
        OPENSORA_PLAN,
        VCHITECT,
        replace(LATTE, name="toy", pipeline="ToyPipeline"),
        replace(WAN, name="toy-flow", pipeline="ToyFlowPipeline"),
    )
}


def find_spec(module: nn.Module, pipeline: object) -> ModelSpec:
    """The spec for a transformer in a pipeline: made for the pipeline's class, else for the nearest base.

    Raises:
        ValueError: if the class of the transformer is unknown; says which are known and what to do.
    """
    classes = [cls.__name__ for cls in type(module).__mro__]
    pipelines = {cls.__name__ for cls in type(pipeline).__mro__}
    fitting = [
        spec for spec in SPECS.values() if spec.transformer in classes and spec.pipeline in (*pipelines, "")
    ]
    if not fitting:
        known = {spec.transformer for spec in SPECS.values()}
        raise ValueError(
            f"{unknown('transformer class', type(module).__name__, known)}. "
            "Describe it with a keystep.ModelSpec and pass spec=: docs/extending.md shows how"
        )
    return max(fitting, key=lambda spec: (len(spec.pipeline), -classes.index(spec.transformer)))
