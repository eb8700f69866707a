"""The formats that weights are written in, by name. Knows no torch."""

from typing import Literal

Export = Literal["cog", "webui", "diffusers", "bundle"]
"""`cog` is the archive, `webui` a LoRA with kohya's keys, `bundle` that with the embeddings in it,
`diffusers` a LoRA with peft's keys."""
