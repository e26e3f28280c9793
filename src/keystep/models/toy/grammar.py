"""The caption language of the toy model: what a prompt can say, and which scenes training never sees.

A caption names a size, a colour, a shape, a motion (with a pace, unless at rest) and a background:
``a small red circle moving left slowly on a striped background``. Some (shape, colour, motion) triples
are held out of training, so that an evaluation can ask for scenes the model has never been shown.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIZES = ("small", "large")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple")  # in hue order, 60 degrees apart
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = ("rest", "left", "right", "up", "down", "bounce", "orbit", "grow")
PACES = ("slowly", "quickly")
BACKGROUNDS = ("dark", "grey", "light", "striped", "checkered")
PHRASES = {
    "rest": "resting",
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "down": "moving down",
    "bounce": "bouncing",
    "orbit": "orbiting",
    "grow": "growing",
}
MOTION_WORDS = tuple(phrase.split()[-1] for phrase in PHRASES.values())
CONTENT_WORDS = (*SIZES, *COLOURS, *SHAPES, *MOTION_WORDS, *PACES, *BACKGROUNDS)
FILLER_WORDS = ("a", "an", "the", "on", "moving", "background")
HELD_OUT_ONE_IN = 5  # one (shape, colour, motion) triple in five is never trained on
SPEEDS = ("still", "slow", "fast")
_DEVELOPMENT_SEED, _HELD_OUT_SEED = 1, 2


@dataclass(frozen=True)
class Caption:
    """What one clip shows, in the words of the grammar.

    Args:
        size: one of `SIZES`.
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        motion: one of `MOTIONS`.
        pace: one of `PACES`; the empty string if and only if the motion is ``rest``.
        background: one of `BACKGROUNDS`.

    Raises:
        ValueError: a word is not in the grammar, or the pace does not fit the motion.
    """

    size: str
    colour: str
    shape: str
    motion: str
    pace: str
    background: str

    def __post_init__(self) -> None:
        allowed = {
            "size": SIZES,
            "colour": COLOURS,
            "shape": SHAPES,
            "motion": MOTIONS,
            "pace": ("",) if self.motion == "rest" else PACES,
            "background": BACKGROUNDS,
        }
        for field, words in allowed.items():
            if getattr(self, field) not in words:
                raise ValueError(
                    f"Caption.{field} is {getattr(self, field)!r}; allowed: {', '.join(map(repr, words))}"
                )

    @property
    def speed(self) -> str:
        """One of `SPEEDS`: ``still`` at rest, else ``slow`` or ``fast``."""
        return {"": "still", "slowly": "slow", "quickly": "fast"}[self.pace]

    @property
    def prompt(self) -> str:
        """The caption as an English phrase; `parse_prompt` reads it back."""
        phrase = " ".join(filter(None, (PHRASES[self.motion], self.pace)))
        return f"a {self.size} {self.colour} {self.shape} {phrase} on a {self.background} background"

    @property
    def is_held_out(self) -> bool:
        """Whether training never sees this (shape, colour, motion), at any size, pace or background."""
        # The three weights are coprime to the divisor: each pair of words loses about one partner in five.
        key = SHAPES.index(self.shape) + 2 * COLOURS.index(self.colour) + 3 * MOTIONS.index(self.motion)
        return key % HELD_OUT_ONE_IN == 0


def parse_prompt(prompt: str) -> Caption:
    """Read a complete prompt of the grammar back into its caption.

    Args:
        prompt: words of the grammar; fillers and word order do not matter.

    Raises:
        ValueError: a word is unknown, or a field is missing.
    """
    words = [word for word in prompt.lower().split() if word not in FILLER_WORDS]
    unknown = [word for word in words if word not in CONTENT_WORDS]
    if unknown:
        raise ValueError(f"prompt has unknown words {unknown}; known words: {', '.join(CONTENT_WORDS)}")

    def pick(field: str, choices: Sequence[str]) -> str:
        found = [word for word in words if word in choices]
        if len(found) != 1:
            raise ValueError(f"prompt {prompt!r} must name exactly one {field} out of {', '.join(choices)}")
        return found[0]

    motion = MOTIONS[MOTION_WORDS.index(pick("motion", MOTION_WORDS))]
    return Caption(
        size=pick("size", SIZES),
        colour=pick("colour", COLOURS),
        shape=pick("shape", SHAPES),
        motion=motion,
        pace="" if motion == "rest" else pick("pace", PACES),
        background=pick("background", BACKGROUNDS),
    )


def all_captions() -> list[Caption]:
    """Every caption of the grammar, in a fixed order."""
    fields = itertools.product(SIZES, COLOURS, SHAPES, MOTIONS, PACES, BACKGROUNDS)
    return [
        Caption(size, colour, shape, motion, "" if motion == "rest" else pace, background)
        for size, colour, shape, motion, pace, background in fields
        if not (motion == "rest" and pace == PACES[1])  # one entry at rest, not one a pace
    ]


def _balanced(held_out: bool, num_prompts: int, seed: int) -> list[str]:
    pools = {speed: [] for speed in SPEEDS}
    for caption in all_captions():
        if caption.is_held_out == held_out:
            pools[caption.speed].append(caption.prompt)
    rng = random.Random(seed)
    for pool in pools.values():
        rng.shuffle(pool)
    limit = len(SPEEDS) * min(map(len, pools.values()))
    if not 1 <= num_prompts <= limit:
        raise ValueError(f"num_prompts is {num_prompts}; allowed: 1 to {limit}")
    turns = itertools.chain.from_iterable(zip(*pools.values(), strict=False))
    return list(itertools.islice(turns, num_prompts))


def development_prompts(num_prompts: int) -> list[str]:
    """Prompts for tuning: still, slow and fast in turn, all of triples that training has seen."""
    return _balanced(held_out=False, num_prompts=num_prompts, seed=_DEVELOPMENT_SEED)


def held_out_prompts(num_prompts: int) -> list[str]:
    """Prompts for published figures: still, slow and fast in turn, all of triples never trained on."""
    return _balanced(held_out=True, num_prompts=num_prompts, seed=_HELD_OUT_SEED)


def write_prompt_lists(folder: str | Path, num_prompts: int = 48) -> tuple[Path, Path]:
    """Write both lists, a prompt a line, as ``development.txt`` and ``held_out.txt``.

    Args:
        folder: where to write; made if absent.
        num_prompts: prompts in each list.

    Returns:
        The two paths, development first.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lists = {
        "development.txt": development_prompts(num_prompts),
        "held_out.txt": held_out_prompts(num_prompts),
    }
    for name, prompts in lists.items():
        (folder / name).write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return folder / "development.txt", folder / "held_out.txt"
