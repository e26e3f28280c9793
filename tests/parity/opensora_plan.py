"""Open-Sora-Plan 1.1 beside its transformer: autoencoder, prompts, and the keys of the released weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import BatchEncoding, T5Config, T5EncoderModel

from keystep.models.checkpoint import State, compare_keys
from keystep.models.opensora_plan.loading import build_vae
from keystep.models.opensora_plan.text import encode_negatives, encode_prompts, prepare_prompts
from keystep.models.opensora_plan.transformer import (
    UNUSED_KEYS,
    OpenSoraPlanTransformer3DModel,
    transformer_arguments,
)
from keystep.models.opensora_plan.vae import CausalVideoVAE, vae_arguments

from .folder import nearest, read_json
from .forward import keeper, locate, without_images
from .networks import is_open_sora_plan
from .report import ABSOLUTE, Case, Result, largest_difference, worst

ONE_LEVEL = 1.0  # of 255: rounding where a value lies on the edge of two
CPU = torch.device("cpu")


def find(folder: Path, label: str) -> Iterator[Case]:
    """The cases of a folder of Open-Sora-Plan."""
    for path in sorted(folder.glob("clean_caption*.json")):
        if all("opensora_plan" in entry for entry in read_json(path)):
            yield Case(label + path.stem, path, run_cleaning)
    for path in sorted(folder.glob("full_keys_*.json")):
        for is_config, run in ((is_open_sora_plan, run_transformer_keys), (is_causal_vae, run_vae_keys)):
            if is_config(read_json(path).get("config", {})):
                yield Case(label + path.stem, path, run)
    if any(is_causal_vae(read_json(path)) for path in nearest(folder, "vae_config.json")):
        for path in sorted(folder.glob("vae_golden*.safetensors")):
            yield Case(label + path.stem, path, run_vae)
    if any(is_open_sora_plan(read_json(path)) for path in nearest(folder, "transformer_config.json")):
        for path in sorted(folder.glob("text.safetensors")):
            yield Case(label + path.stem, path, run_text)


def is_causal_vae(config: dict[str, Any]) -> bool:
    """Whether a config is one of the causal video autoencoder."""
    return {"encoder_temporal_downsample", "q_conv"} <= set(config)


# ------------------------------------------------------------------ released keys


def run_transformer_keys(name: str, path: Path) -> Iterator[Result]:
    """Names and shapes of the released transformer's weights."""
    content = read_json(path)
    with torch.device("meta"):
        model = OpenSoraPlanTransformer3DModel(**transformer_arguments(content["config"]))
    yield compare_lists(name, model, content["keys"], UNUSED_KEYS)


def run_vae_keys(name: str, path: Path) -> Iterator[Result]:
    """Names and shapes of the released autoencoder's weights."""
    content = read_json(path)
    with torch.device("meta"):
        model = CausalVideoVAE(**vae_arguments(content["config"]))
    yield compare_lists(name, model, content["keys"])


def compare_lists(
    name: str, model: torch.nn.Module, keys: dict[str, list[int]], unused: frozenset[str] = frozenset()
) -> Result:
    """The number of ways in which the keys do not fit."""
    state = {key: torch.empty(shape, device="meta") for key, shape in keys.items() if key not in unused}
    problems = compare_keys(model, state)
    dropped = sum(key in keys for key in unused)
    note = "; ".join(problems) or f"{len(keys)} keys, {dropped} of them unused"
    return Result(name, float(len(problems)), note=note)


# ------------------------------------------------------------------ autoencoder


def run_vae(name: str, path: Path) -> Iterator[Result]:
    """Decoded and encoded videos, whole and in tiles, and intermediates."""
    tensors = load_file(path)
    for group in sorted({key.partition(".")[0] for key in tensors}):
        own = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{group}.")}
        vae = find_vae(path.parent)
        if "in_bcthw" in own:
            yield from compare_encoded(f"{name} {group}", vae, own)
        elif "same_z_untiled_out_btchw" in own:
            yield from compare_tiled(f"{name} {group}", vae, own, path.parent)
        else:
            vae.disable_tiling()
            yield from compare_decoded(f"{name} {group}", vae, own)


def find_vae(folder: Path) -> CausalVideoVAE:
    """The autoencoder of the nearest config and weights."""
    config = nearest(folder, "vae_config.json")[0]
    weights = nearest(folder, "vae_weights.safetensors")[0]
    return build_vae(read_json(config), load_file(weights), weights)


def decode(vae: CausalVideoVAE, scaled: torch.Tensor) -> torch.Tensor:
    """Scaled latents to a video (B, T, C, H, W)."""
    with torch.no_grad():
        video = vae.decode(scaled / vae.config["scaling_factor"], return_dict=False)[0]
    return video.transpose(1, 2)


def compare_decoded(name: str, vae: CausalVideoVAE, golden: State) -> Iterator[Result]:
    """The video, its bytes, and outputs of modules."""
    names = [key.removeprefix("mid.") for key in golden if key.startswith("mid.")]
    middle: dict[str, torch.Tensor] = {}
    for key in names:
        module, index = locate(vae, key)
        assert module is not None, key
        module.register_forward_hook(keeper(middle, key, index))
    video = decode(vae, golden["in_latents_scaled"])
    yield Result(f"{name} out", largest_difference(video, golden["out_btchw"]), ABSOLUTE)
    if names:
        error, index = worst([largest_difference(middle[key], golden[f"mid.{key}"]) for key in names])
        yield Result(f"{name} mid.*", error, ABSOLUTE, f"worst of {len(names)}: {names[index]}")
    if "uint8_bthwc" in golden:
        shown = ((video / 2 + 0.5).clamp(0, 1) * 255).byte().permute(0, 1, 3, 4, 2)
        yield Result(f"{name} bytes", largest_difference(shown, golden["uint8_bthwc"]), ONE_LEVEL)


def compare_tiled(name: str, vae: CausalVideoVAE, golden: State, folder: Path) -> Iterator[Result]:
    """One video whole and in tiles of the sizes in `vae_tiling.json`."""
    vae.disable_tiling()
    whole = decode(vae, golden["in_latents_scaled"])
    yield Result(f"{name} whole", largest_difference(whole, golden["same_z_untiled_out_btchw"]), ABSOLUTE)
    for key, value in read_json(nearest(folder, "vae_tiling.json")[0]).items():
        getattr(vae, key)  # there must be one
        setattr(vae, key, value)
    vae.enable_tiling()
    tiled = decode(vae, golden["in_latents_scaled"])
    yield Result(f"{name} tiles", largest_difference(tiled, golden["out_btchw"]), ABSOLUTE)


def compare_encoded(name: str, vae: CausalVideoVAE, golden: State) -> Iterator[Result]:
    """Mean and logarithm of the variance of the latents."""
    vae.disable_tiling()
    with torch.no_grad():
        posterior = vae.encode(golden["in_bcthw"], return_dict=False)[0]
    yield Result(f"{name} mean", largest_difference(posterior.mean, golden["mean_unscaled"]), ABSOLUTE)
    yield Result(f"{name} logvar", largest_difference(posterior.logvar, golden["logvar"]), ABSOLUTE)


# ------------------------------------------------------------------ prompts


class CharacterTokenizer:
    """The tokenizer the recorded texts were made with: one token a character, 1 at the end, 0 after it."""

    def __call__(
        self, texts: list[str], max_length: int = 0, padding: str = "", **options: Any
    ) -> BatchEncoding:
        del options
        ids = [[*(2 + ord(letter) % 60 for letter in text), 1] for text in texts]
        if not padding:
            return BatchEncoding({"input_ids": ids})
        ids = [row if len(row) <= max_length else [*row[: max_length - 1], 1] for row in ids]
        padded = torch.tensor([row + [0] * (max_length - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (max_length - len(row)) for row in ids])
        return BatchEncoding({"input_ids": padded, "attention_mask": mask})


def run_text(name: str, path: Path) -> Iterator[Result]:
    """A prompt and the empty one: cleaned text, T5 embeddings, what the transformer gets."""
    description, tensors = read_json(path.with_suffix(".json")), load_file(path)
    encoder = T5EncoderModel(T5Config(**t5_fields(description["t5_config"]))).eval()
    weights = nearest(path.parent, "text_tiny_t5_weights.safetensors")[0]
    encoder.load_state_dict(load_file(weights), strict=False)
    texts = [prepare_prompts([text]) for text in (description["prompt"], "")]
    different = sum(a != b for a, b in zip(texts, description["texts_after_preprocessing"], strict=True))
    yield Result(f"{name} cleaned", float(different), note="of 2")
    with torch.no_grad():
        prompt = encode_prompts(CharacterTokenizer(), encoder, texts[0], CPU)
        negative = encode_negatives(CharacterTokenizer(), encoder, texts[1], prompt.shape[1], CPU)
        whole = encode_negatives(
            CharacterTokenizer(), encoder, texts[1], tensors["uncond.t5_out"].shape[1], CPU
        )
    golden = without_images(tensors["prompt_embeds_fed_to_transformer(uncond,cond)"])
    yield Result(f"{name} embeds", largest_difference(torch.cat([negative, prompt]), golden), ABSOLUTE)
    yield Result(f"{name} uncond.t5_out", largest_difference(whole, tensors["uncond.t5_out"]), ABSOLUTE)


def t5_fields(recorded: dict[str, Any]) -> dict[str, Any]:
    """What of a recorded config says how the encoder computes."""
    known = T5Config().to_dict()
    size = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "feed_forward_proj")
    return {
        key: recorded[key]
        for key in (*size, *(k for k in known if k.startswith("relative_")))
        if key in recorded
    }


def run_cleaning(name: str, path: Path) -> Iterator[Result]:
    """Every prompt, cleaned and as it is."""
    for kind, is_cleaned in (("opensora_plan", True), ("no_clean", False)):
        entries = [entry for entry in read_json(path) if kind in entry]
        ours = [prepare_prompts([entry["input"]], is_cleaned)[0] for entry in entries]
        wrong = [entry for text, entry in zip(ours, entries, strict=True) if text != entry[kind]]
        note = f"; first: {json.dumps(wrong[0]['input'])}" if wrong else ""
        yield Result(f"{name} {kind}", float(len(wrong)), note=f"of {len(entries)}{note}")
