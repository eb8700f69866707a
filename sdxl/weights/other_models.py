"""Files for another model are known by their keys and shapes, and refused by its name."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_OTHERS: tuple[tuple[str, str], ...] = (
    (r"double_blocks|single_transformer_blocks|single_blocks", "a Flux model"),
    (r"joint_blocks|\.add_[kqv]_proj\.|context_block", "a Stable Diffusion 3 model"),
    (r"^(lora_)?transformer[._]|\.t5\b|^t5xxl", "a transformer model, such as Flux or SD 3"),
    (r"^lora_te_", "a Stable Diffusion 1 or 2 model, which has one text encoder"),
    (r"^emb_params$|^string_to_param", "a Stable Diffusion 1 or 2 model (an embedding)"),
    (r"^model\.diffusion_model\.|^conditioner\.|^first_stage_model\.", ""),
    (r"^control_model\.|^controlnet_|^lora_controlnet", "ControlNet"),
    (r"^(image_proj|ip_adapter)\.", "IP-Adapter"),
    (r"(down|up)_blocks[._]3[._]", "a Stable Diffusion 1 or 2 model, whose U-Net has four blocks"),
)
_WIDTHS = {
    768: "a Stable Diffusion 1 model",
    1024: "a Stable Diffusion 2 model",
    1280: "the SDXL refiner",
}
_TEXT_INPUT = re.compile(r".*attn2\.to_[kv]\.lora_A\.weight")


def refuse_by_keys(keys: Iterable[str], name: str) -> None:
    """Refuse a file whose keys are another model's.

    Raises:
        ValueError: It says which model's.
    """
    keys = list(keys)
    for pattern, model in _OTHERS:
        if any(re.search(pattern, key) for key in keys):
            if not model:
                raise ValueError(
                    f"{name} is a whole base model, not weights that were trained on one: give it "
                    "as base_model"
                )
            raise ValueError(f"{name} is for {model}: only weights for SDXL can be used here")


def refuse_by_widths(lora: Mapping[str, Tensor], name: str) -> None:
    """Refuse a U-Net's LoRA whose cross-attention reads another model's text.

    Raises:
        ValueError: It says which model's.
    """
    for key, value in lora.items():
        if _TEXT_INPUT.fullmatch(key) and (model := _WIDTHS.get(value.shape[1])):
            raise ValueError(
                f"{name} is for {model}: its cross-attention reads text of {value.shape[1]} "
                "numbers a token, SDXL's 2048. Only weights for SDXL can be used here"
            )
