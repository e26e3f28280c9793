"""What a user calls."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from keystep.engine.method import Method, outline_length
from keystep.engine.session import Session, attached, session_of
from keystep.engine.storage import Storage
from keystep.engine.target import find_transformers
from keystep.errors import require, unknown
from keystep.methods.registry import build, check_options, list_names
from keystep.models.catalogue import CATALOGUE, find_pipeline
from keystep.models.registry import find_spec
from keystep.models.spec import ModelSpec, unknown_model
from keystep.what import Guidance, Guided


def accelerate(
    target: Any,
    method: str | Method,
    *,
    spec: ModelSpec | None = None,
    guidance: str | Guidance | None = None,
    storage: Storage | None = None,
    **options: Any,
) -> AbstractContextManager[Session]:
    """Accelerate a pipeline inside a `with` block; leaving the block restores it exactly, also after an
    exception.

    Args:
        target: a diffusers pipeline, or a bare transformer (then call `begin` and `step` of the session
            yourself).
        method: a name (`keystep methods` lists them), a method object such as `keystep.AdaCache(...)`, or a
            `Policy`.
        spec: where the sites of an unknown model are; None = look the transformer's class up.
        guidance: layout of the guidance branches if it differs from the model's usual one, e.g.
            "batched:uncond,cond" or "separate:cond,uncond".
        storage: where cached tensors live, e.g. `keystep.Storage(device="cpu")`; None = where they are
            computed.
        options: of the method, when it is given by name.

    Returns:
        A context manager that yields the `Session`: `.summary()`, `.trace`.

    Raises:
        ValueError: unknown method, option or model, a policy that matches nothing in the model, a scheduler
            that cannot be followed, a transformer that is accelerated already.
    """
    return attached(session_for(target, method, options, spec, guidance, storage))


def enable(
    target: Any,
    method: str | Method,
    *,
    spec: ModelSpec | None = None,
    guidance: str | Guidance | None = None,
    storage: Storage | None = None,
    **options: Any,
) -> Session:
    """Accelerate a pipeline until `disable`; on one that is enabled already the new settings replace the old
    ones.

    Arguments, result and errors as `accelerate`; a call that fails leaves the old settings in force.
    """
    session = session_for(target, method, options, spec, guidance, storage)
    before = session_of(target)
    if before is not None and before.target is not target:
        raise ValueError(
            f"transformer: already accelerated as part of another {type(before.target).__name__}; call "
            "keystep.disable() with that one first"
        )
    if before is not None and before.is_scoped:
        raise ValueError(
            "transformer: already accelerated for the length of a `with keystep.accelerate(...)`; leave that "
            "block first"
        )
    if before is not None:
        before.close()
    try:
        session.attach()
    except BaseException:
        if before is not None:
            before.attach()
        raise
    return session


def disable(target: Any) -> None:
    """Restore a pipeline; without an attached policy nothing happens."""
    session = session_of(target)
    if session is None:
        return
    modules: list[Any] = list(session.models.values())
    for module in modules:
        if session.entry is not None and getattr(module, "_cache_config", None) is session.entry:
            module.disable_cache()  # it came by diffusers' switch, and leaves by it
    session.close()


def load(
    model: str,
    *,
    source: str | None = None,
    device: str = "cpu",
    dtype: Any = None,
    offload: bool = False,
    **options: Any,
) -> Any:
    """Load a pipeline.

    Args:
        model: a name of the catalogue (`keystep models` lists them; "toy" and "toy-flow" ship with keystep),
            else a hub id or a folder that `save_pretrained` of a pipeline wrote.
        source: folder or hub id to load a named model from; None = its released checkpoint.
        device: where it runs, e.g. "cuda".
        dtype: torch dtype of the weights, or its name, "bfloat16"; None = float32, but for other pipelines of
            diffusers the checkpoint's own.
        offload: keep each part in host memory and move it to the device only while it works (diffusers'
            `enable_model_cpu_offload`): a text encoder of 19 GB then does not stand beside the denoiser.
        options: go to the pipeline's `from_pretrained`, e.g. `text_encoder="/data/t5"` for Open-Sora.

    Returns:
        The pipeline, on `device` or coming there part by part.

    Raises:
        ValueError: an unknown name (with near misses), or it cannot be loaded; says why.
    """
    place, dtype = _place(model, source), _dtype(dtype)
    _check_device(device)
    if place is None and options:
        raise ValueError(f"model: {model!r} ships with keystep and takes no {', '.join(options)}")
    pipe = _load_shipped(model, dtype) if place is None else _load_from(place, model, dtype, options)
    if offload:
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


def _dtype(dtype: Any) -> Any:
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    is_valid = found is None if dtype is None else isinstance(found, torch.dtype)
    require(is_valid, "dtype", dtype, 'None, a torch dtype or its name, e.g. "bfloat16"')
    return found


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"device: given {device!r}, which cannot be used here: {error}") from None


def _load_shipped(model: str, dtype: Any) -> Any:
    import torch

    from keystep.models.toy.loading import SHIPPED

    return SHIPPED[model](dtype=dtype or torch.float32)


def _load_from(place: str, model: str, dtype: Any, options: dict[str, Any]) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    cls = find_pipeline(model) or DiffusionPipeline
    if cls.__module__.startswith("diffusers."):
        options.setdefault("use_safetensors", True)
    if dtype is not None:
        options["dtype"] = dtype
    try:
        return cls.from_pretrained(place, **options)
    except Exception as error:
        raise ValueError(
            f"model: given {model!r}, which cannot be loaded from {place!r}: {type(error).__name__}: {error}"
        ) from error


def _place(model: str, source: str | None) -> str | None:
    """The folder or hub id to load from; None = it ships with keystep."""
    if model in CATALOGUE:
        return source or CATALOGUE[model].checkpoint or None
    if source is not None:
        raise ValueError(f"source: goes with a model's name ({', '.join(CATALOGUE)}), given model {model!r}")
    if "/" not in model and not Path(model).is_dir():
        raise unknown("model", model, CATALOGUE)
    return model


def session_for(
    target: Any,
    method: str | Method,
    options: dict[str, Any],
    spec: ModelSpec | None,
    guidance: str | Guidance | None,
    storage: Storage | None,
) -> Session:
    """A session, not attached yet; arguments and errors as `accelerate`."""
    made = _method(method, options)
    module = next(iter(find_transformers(target).values()))
    return Session(target, made, spec or _spec_for(made, module, target), guidance, storage)


def _spec_for(method: Method, module: Any, target: Any) -> ModelSpec:
    """The spec of a model; for methods that touch nothing inside of it an unknown one needs none."""
    try:
        return find_spec(getattr(module, "_orig_mod", module), target)
    except ValueError:
        if all(isinstance(rule.what, Guided) for rule in method.policy("", outline_length(method)).rules):
            return unknown_model(type(module).__name__)
        raise


def _method(method: str | Method, options: dict[str, Any]) -> Method:
    if isinstance(method, str):
        return build(method, **options)
    if isinstance(method, type) or not callable(getattr(method, "policy", None)):
        raise ValueError(
            f"method: given {method!r}, allowed: a name ({list_names()}), a method object such as "
            "keystep.AdaCache(), or a keystep.Policy"
        )
    if options:
        raise ValueError(
            f"options {sorted(options)}: allowed only with a method's name; this one is an object: {method!r}"
        )
    return check_options(method)
