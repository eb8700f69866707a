"""The tables of the page on training methods: which variants, and which figures of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import mean

from bench.learning.results import PictureKind, Reference, Result
from bench.learning.variants import BASELINE


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of each variant.

    Attributes:
        heading: Of the column.
        field: Of `Result`, and of `Reference` if the untrained base has the figure too.
        digits: Behind the point, of the mean.
        range_digits: Of the least and the greatest; None shows the mean alone.
        scale: The figure is divided by it.
        index: Into the field, if it holds several figures.
    """

    heading: str
    field: str
    digits: int
    range_digits: int | None = None
    scale: float = 1.0
    index: int | None = None

    def text(self, results: Sequence[Result]) -> str:
        """Return the mean and what it is the mean of, such as `15.97 (15.7-16.1)`."""
        values = [self._value(result) for result in results]
        text = f"{mean(values):.{self.digits}f}"
        if self.range_digits is None or len(values) == 1:
            return text
        return f"{text} ({min(values):.{self.range_digits}f}-{max(values):.{self.range_digits}f})"

    def base_text(self, reference: Reference) -> str:
        """Return the untrained base's figure; empty where it has none."""
        if self.field not in {field.name for field in fields(reference)}:
            return ""
        return f"{self._value(reference):.{self.digits}f}"

    def _value(self, measured: Result | Reference) -> float:
        value = getattr(measured, self.field)
        return (value if self.index is None else value[self.index]) / self.scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A table of the page.

    Attributes:
        name: Of its picture's file.
        title: Of the section.
        question: What it asks, and how it is measured.
        variants: Their names, in the order of the rows.
        columns: Beside the description and the settings.
        best_first: The rows are sorted by match instead.
        shows: The pictures of its sheet.
    """

    name: str
    title: str
    question: str
    variants: tuple[str, ...]
    columns: tuple[Column, ...]
    best_first: bool = False
    shows: PictureKind = "subject"


MATCH = Column("match, dB", "match", 2, 1)
SETTING = Column("setting", "setting", 2, 2)
LOSS = Column("held-out loss", "held_out_loss", 4, 4)
TABLE = Column("table unasked", "table_share", 2, 2)
CLASS_MATCH = Column("class, dB", "class_match", 2, 1)
CLASS_DIFFERENCE = Column("class differs by", "class_difference", 1, 1)
ARCHIVE = Column("archive, MB", "archive_bytes", 2, scale=1e6)
WEIGHTS = Column("LoRA or U-Net in it, MB", "weights_bytes", 2, scale=1e6)
SECONDS = Column("seconds", "seconds", 0)

_FIDELITY = (MATCH, SETTING, LOSS)
_COST = (WEIGHTS, ARCHIVE, SECONDS)
_BANDS = tuple(
    Column(f"loss at {words} noise", "band_losses", 4, 4, index=i)
    for i, words in enumerate(("little", "some", "much", "most"))
)

GROUPS = (
    Group(
        name="methods",
        title="Methods",
        question="What should be trained at all? Best match first.",
        variants=(
            BASELINE,
            "lora_alone",
            "lora_alone_toy",
            "lora_text",
            "dora",
            "full",
            "ti_2",
            "ti_8",
        ),
        columns=(*_FIDELITY, CLASS_MATCH, *_COST),
        best_first=True,
    ),
    Group(
        name="targets",
        title="Where LoRA goes, and how large it is",
        question="Which layers of the U-Net need matrices, and of which rank?",
        variants=(
            "cross_attention",
            "attention",
            "attention_ff",
            BASELINE,
            "rank_2",
            "rank_32",
            "rank_32_alpha_8",
        ),
        columns=(*_FIDELITY, CLASS_MATCH, *_COST),
    ),
    Group(
        name="pivot",
        title="Pivotal tuning",
        question=(
            "How many new vectors, from which start, how fast and for which part of the run? "
            "`lora_alone` is the end of the row: none of it."
        ),
        variants=(
            "lora_alone",
            "pivot_early",
            BASELINE,
            "pivot_never",
            "vectors_1",
            "vectors_4",
            "ti_lr_high",
            "pti_toy",
        ),
        columns=(*_FIDELITY, SECONDS),
    ),
    Group(
        name="pivotal",
        title="Where pivotal tuning pays",
        question=(
            "With and without training the vectors: in the usual run, in a short one, and with a "
            "very small LoRA."
        ),
        variants=(BASELINE, "lora_alone", "short", "short_alone", "small", "small_alone"),
        columns=(*_FIDELITY, CLASS_MATCH, WEIGHTS, SECONDS),
    ),
    Group(
        name="loss",
        title="Loss, regularization and optimizer",
        question="What do the options do that change the loss, the pictures or the optimizer?",
        variants=(
            BASELINE,
            "snr_5",
            "noise_offset",
            "caption_dropout",
            "lora_dropout",
            "no_flip",
            "prodigy",
        ),
        columns=(*_FIDELITY, CLASS_MATCH, SECONDS),
    ),
    Group(
        name="masks",
        title="What masks are for",
        question=(
            "Ten pictures that all show the subject on a wooden table, which no caption says. Does "
            "the table stick to the token? Table unasked is the share of pictures of `a photo of "
            "TOK`, which are shown, with a table in them; the setting and the match are those of "
            "prompts that name one of four settings, none of them trained. The held-out loss "
            "counts backgrounds too, which masks take out of the training."
        ),
        variants=("one_setting", "one_setting_masked"),
        columns=(TABLE, *_FIDELITY, SECONDS),
        shows="plain",
    ),
    Group(
        name="prior",
        title="What prior preservation is for",
        question=(
            "Asked for the class, `a toy`, in four settings, the model should make what the base "
            "makes, and not the subject. The pictures are those of the class; how much they differ "
            "from the base's own of the same seeds is the mean over all values, 0 to 255."
        ),
        variants=(BASELINE, "prior"),
        columns=(CLASS_MATCH, CLASS_DIFFERENCE, MATCH, SETTING, SECONDS),
        shows="class",
    ),
    Group(
        name="min-snr",
        title="What min-SNR is for",
        question=(
            "It is said to learn faster, by not letting the easy, nearly clean pictures lead: the "
            "loss on unseen pictures in four bands of noise, after 100 steps and after 400."
        ),
        variants=("short", "short_snr_5", BASELINE, "snr_5"),
        columns=(MATCH, LOSS, *_BANDS),
    ),
)
