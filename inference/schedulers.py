"""The samplers by name: cog-sdxl's seven, and newer ones."""

from collections.abc import Mapping

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

# class, and what differs from the base model's own scheduler config
SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, object]]] = {
    # latents are not within -1 and 1, and the last step ends where the first one begins: as in
    # SDXL's published config, which other bases may not repeat
    "DDIM": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "DPMSolverMultistep": (DPMSolverMultistepScheduler, {}),
    "HeunDiscrete": (HeunDiscreteScheduler, {}),
    # cog-sdxl's pictures came from a diffusers that ended at sigma_min; today's default is zero
    "KarrasDPM": (
        DPMSolverMultistepScheduler,
        {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    ),
    "K_EULER_ANCESTRAL": (EulerAncestralDiscreteScheduler, {}),
    "K_EULER": (EulerDiscreteScheduler, {}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "DPM++2MSDE": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    # for bases and LoRAs distilled for it (LCM-LoRA): 4 to 8 steps, guidance_scale 1 to 2
    "LCM": (LCMScheduler, {}),
    "UniPC": (UniPCMultistepScheduler, {}),
    # begins at pure noise: for SDXL-Turbo, -Lightning and others of 1 to 8 steps
    "EulerTrailing": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
}


def build_scheduler(name: str, config: Mapping[str, object]) -> SchedulerMixin:
    """Return the sampler `name` with the base model's noise schedule.

    Raises:
        ValueError: There is no such sampler.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}")
    scheduler, changes = SCHEDULERS[name]
    return scheduler.from_config(config, **changes)
