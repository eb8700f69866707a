"""Which layers get LoRA, by the name of the choice. Knows no torch."""

from typing import Literal

LoraTarget = Literal["attention", "cross_attention", "attention_feedforward", "all"]

_ATTENTION = r"attn[12]\.(?:to_q|to_k|to_v|to_out\.0)"
_FEEDFORWARD = r"ff\.net\.(?:0\.proj|2)"
_CONVOLUTIONS = r"proj_in|proj_out|conv1|conv2|conv_shortcut"

LORA_TARGET_MODULES: dict[LoraTarget, str] = {
    "attention": _ATTENTION,
    "cross_attention": r"attn2\.(?:to_q|to_k|to_v|to_out\.0)",
    "attention_feedforward": rf"{_ATTENTION}|{_FEEDFORWARD}",
    "all": rf"{_ATTENTION}|{_FEEDFORWARD}|{_CONVOLUTIONS}",
}
"""Regular expressions for the ends of module names of the U-Net: the attention's query, key, value
and output projections; those of the cross-attention alone; with the feed-forward layers; with the
projections and convolutions around them as well."""

TEXT_ENCODER_MODULES = r"self_attn\.(?:q_proj|k_proj|v_proj|out_proj)"
"""The same for both text encoders: the projections of the self-attention."""
