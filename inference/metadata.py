"""The settings of a picture as the text that AUTOMATIC1111's web UI writes into its pictures.

The prompt, `Negative prompt: ...` and one line `Steps: 30, Sampler: Euler, ...`: what its "PNG
Info", Civitai and most viewers read. Inputs that it has no name for keep ours. Knows no torch.
Source of the form: create_infotext and parse_generation_parameters of that web UI, version 1.10.
"""

import json
import re
from collections.abc import Sequence

from inference.request import GenerationRequest

# Our scheduler: its sampler and schedule type there. Steps are spaced as in the base model's own
# config ("leading" for SDXL), which is nearest to its "Uniform".
SAMPLERS: dict[str, tuple[str, str | None]] = {
    "DDIM": ("DDIM", None),
    "DPMSolverMultistep": ("DPM++ 2M", "Uniform"),
    "HeunDiscrete": ("Heun", "Uniform"),
    "KarrasDPM": ("DPM++ 2M", "Karras"),
    "K_EULER_ANCESTRAL": ("Euler a", "Uniform"),
    "K_EULER": ("Euler", "Uniform"),
    "PNDM": ("PLMS", None),
    "DPM++2MSDE": ("DPM++ 2M SDE", "Uniform"),
    "LCM": ("LCM", None),
    "UniPC": ("UniPC", None),
    "EulerTrailing": ("Euler", "SGM Uniform"),
}

_ADDRESS = re.compile(r"(\w+://)(?:[^/\s?#]*@)?([^\s?#]*)(?:[?#]\S*)?")
_DATA_URL = re.compile(r"data:([\w/.+-]*)[;,]\S*")
_NEEDS_QUOTES = re.compile(r'[,:"\r\n]|^\s|\s$')


def picture_text(
    request: GenerationRequest,
    size_px: tuple[int, int],
    seed: int,
    base_model: str,
    sources: Sequence[tuple[str, float]] = (),
) -> str:
    """Return the text for one picture: what it takes to make it again, alone.

    Args:
        request: That it came from.
        size_px: Its width and height.
        seed: Its own.
        base_model: As it was named.
        sources: Where the fine-tunes came from, and their scales.
    """
    sampler, schedule_type = SAMPLERS[request.scheduler]
    has_image, is_refined = request.image is not None, request.needs_refiner
    switches = is_refined and request.refine == "expert_ensemble_refiner"
    settings: dict[str, str | float | None] = {
        "Steps": request.num_inference_steps,
        "Sampler": sampler,
        "Schedule type": schedule_type,
        "CFG scale": request.guidance_scale,
        "Seed": seed,
        "Size": "x".join(map(str, size_px)),
        "Model": shown_source(base_model),
        "Denoising strength": request.prompt_strength if has_image else None,
        "scheduler": request.scheduler,
        "mask": "white is repainted" if request.mask is not None else None,
        "guidance_rescale": request.guidance_rescale or None,
        "refine": request.refine if is_refined else None,
        "high_noise_frac": request.high_noise_frac if switches else None,
        "refine_steps": request.refine_steps if is_refined and not switches else None,
        "weights": ", ".join(f"{shown_source(name)}:{scale:.15g}" for name, scale in sources)
        or None,
    }
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(
        ", ".join(
            f"{name}: {_quoted(value)}" for name, value in settings.items() if value is not None
        )
    )
    # a lone surrogate, which JSON may hold, has no bytes
    return "\n".join(lines).strip().encode("utf-8", "replace").decode()


def shown_source(source: str) -> str:
    """Return an address without user, password, query and fragment, where signatures and keys are.

    Of a data: URL its kind stays. Other texts stay as they are.
    """
    return _DATA_URL.sub(r"data:\1", _ADDRESS.sub(r"\1\2", source))


def _quoted(value: str | float) -> str:
    text = value if isinstance(value, str) else f"{value:.15g}"
    return json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text
