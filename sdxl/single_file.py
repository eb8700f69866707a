"""SDXL in one `.safetensors` file under Stability's names, as Civitai and ComfyUI have it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    create_diffusers_clip_model_from_ldm,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CONV_IN = _UNET + "input_blocks.0.0.weight"
_TEXT_ENCODER = "conditioner.embedders.0.transformer."
_TEXT_ENCODER_2 = "conditioner.embedders.1.model."

# what a key is a sign of, the surest signs first
_OTHERS: tuple[tuple[str, str], ...] = (
    (
        r"lora_|\.lora[._]|\.lora(A|B)|lokr_|hada_|[._]oft_",
        "a LoRA, which is trained on top of a base",
    ),
    (r"double_blocks\.", "a Flux model"),
    (r"joint_blocks\.", "a Stable Diffusion 3 model"),
    (r"scaled_fp8|scale_weight$", "quantized to scaled float8, which cannot be trained"),
    (r"^edm_", "a model of the EDM formulation (arXiv:2206.00364), as Playground v2.5 and CosXL"),
    (r"^cond_stage_model\.transformer\.", "a Stable Diffusion 1 model"),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion 2 model"),
    (r"^conditioner\.embedders\.0\.model\.", "the SDXL refiner, which finishes another's pictures"),
    (r"^control_model\.|^controlnet_", "a ControlNet"),
    (r"^(down_blocks|up_blocks)\.", "the U-Net of a diffusers directory: give that directory"),
    (r"^clip_[lg]$|^emb_params$", "a textual inversion embedding"),
)
_NEEDED = {
    _CONV_IN: "U-Net",
    _UNET + "label_emb.0.0.weight": "size conditioning in its U-Net",
    _TEXT_ENCODER + "text_model.embeddings.token_embedding.weight": "first text encoder (CLIP-L)",
    _TEXT_ENCODER_2 + "token_embedding.weight": "second text encoder (OpenCLIP bigG)",
    _VAE + "decoder.conv_in.weight": "VAE",
}


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A file that holds all four networks of an SDXL.

    Attributes:
        path: The file.
        configs: A diffusers directory of an SDXL, of which only the configs are read.
        tensors: Mapped from the file, read when they are used.
    """

    path: Path
    configs: Path
    tensors: Mapping[str, Tensor]

    @classmethod
    def open(cls, path: Path, configs: Path) -> "SingleFile":
        """Judge a file by the names in it, before any tensor is read.

        Raises:
            ValueError: It is no SDXL; the text says what it is instead.
        """
        keys = _read_keys(path)
        for pattern, what in _OTHERS:
            if any(re.search(pattern, key) for key in keys):
                raise ValueError(f"base_model {path.name} is no SDXL base: it is {what}")
        missing = [part for key, part in _NEEDED.items() if key not in keys]
        if missing:
            raise ValueError(
                f"base_model {path.name} is no whole SDXL: it has no {', no '.join(missing)} "
                f"under Stability's names (its first key is {min(keys, default='none')!r})"
            )
        return cls(path, configs, load_file(path))

    @property
    def in_channels(self) -> int:
        """The U-Net's input channels: 4, or 9 for inpainting."""
        return self.tensors[_CONV_IN].shape[1]

    @property
    def scheduler_changes(self) -> dict[str, object]:
        """What the markers in the file say of the noise schedule (NoobAI-XL's; ComfyUI reads them).

        Without signal at the last step, sampling must begin there: arXiv:2305.08891, section 3.3.
        """
        changes: dict[str, object] = {}
        if "v_pred" in self.tensors:
            changes |= {"prediction_type": "v_prediction"}
        if "ztsnr" in self.tensors:
            changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return changes

    def load(self, network: type, part: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Return the network of `part`, a folder of `configs`, straight on `device`.

        Raises:
            ValueError: The file's network is not as its config in `configs` says.
        """
        if part in ("text_encoder", "text_encoder_2"):
            module = create_diffusers_clip_model_from_ldm(
                network,
                self.tensors,
                subfolder=part,
                config=str(self.configs),
                torch_dtype=dtype,
                local_files_only=True,
            )
            self._check(part, {n: p for n, p in module.named_parameters() if not p.is_meta}, module)
            return module.to(device)
        config = network.load_config(self.configs / part)
        if part == "unet":
            config["in_channels"] = self.in_channels
        convert = convert_ldm_unet_checkpoint if part == "unet" else convert_ldm_vae_checkpoint
        weights = convert(checkpoint=self.tensors, config=config)
        with init_empty_weights():
            module = network.from_config(config)
        self._check(part, weights, module)
        module.load_state_dict(
            {name: weights[name].to(device, dtype) for name in module.state_dict()}, assign=True
        )
        return module

    def _check(self, part: str, weights: Mapping[str, Tensor], module: nn.Module) -> None:
        """Compare what the file has with what the config asks for."""
        expected = module.state_dict()
        wrong = [
            name
            for name, tensor in expected.items()
            if name not in weights or weights[name].shape != tensor.shape
        ]
        if wrong:
            raise ValueError(
                f"base_model {self.path.name} has not SDXL's {part}: {len(wrong)} of "
                f"{len(expected)} weights are missing or of another shape, such as {wrong[0]}. If "
                "it is a distilled model (SSD-1B, Vega), give its diffusers directory or its "
                "Hugging Face repository, which say how its blocks are built"
            )


def _read_keys(path: Path) -> set[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ValueError(
            f"base_model {str(path)!r} is no whole .safetensors file ({error}): download it again"
        ) from error
