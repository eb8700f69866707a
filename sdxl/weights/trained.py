"""What a training run leaves behind, in memory."""

from dataclasses import dataclass, field

from torch import Tensor

from sdxl.concept import Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import Pooling

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedWeights:
    """The result of a run: LoRA or whole U-Net, new embeddings, and what is known about it.

    Attributes:
        concepts: The triggers and the placeholder tokens that stand for them; a LoRA of another
            trainer may have none.
        embeddings: The trained rows of those tokens; None without concepts.
        lora: Of the U-Net, as in `sdxl.lora`: by peft's keys, acting as B A; empty if none was
            trained.
        text_encoder_lora: Of the first text encoder, likewise; keys begin with `text_model.`.
        text_encoder_2_lora: Of the second.
        unet: By diffusers' parameter names; empty unless the whole U-Net was trained.
        record: The content of `training.json`, or what else is known of the file; empty for the
            archives of cog-sdxl.
    """

    concepts: tuple[Concept, ...]
    embeddings: PlaceholderEmbeddings | None
    lora: dict[str, Tensor] = field(default_factory=dict)
    text_encoder_lora: dict[str, Tensor] = field(default_factory=dict)
    text_encoder_2_lora: dict[str, Tensor] = field(default_factory=dict)
    unet: dict[str, Tensor] = field(default_factory=dict)
    record: dict[str, object] = field(default_factory=dict)

    @property
    def base_model(self) -> str | None:
        """The name of the base that they were trained on, if the archive says so."""
        name = self.record.get("base_model")
        return name if isinstance(name, str) else None

    @property
    def pooling(self) -> Pooling:
        """Where the pooled embedding was read in training.

        Archives of cog-sdxl, which have no record, read it at the placeholder token.
        """
        return "end_of_text" if self.record else "highest_token_id"

    @property
    def has_lora(self) -> bool:
        """Whether any network has matrices."""
        return bool(self.lora or self.text_encoder_lora or self.text_encoder_2_lora)
