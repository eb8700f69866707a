"""The samplers by cog-sdxl's names."""

from collections.abc import Mapping

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)

# class, and what differs from the base model's own scheduler config
SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, object]]] = {
    "DDIM": (DDIMScheduler, {}),
    "DPMSolverMultistep": (DPMSolverMultistepScheduler, {}),
    "HeunDiscrete": (HeunDiscreteScheduler, {}),
    # cog-sdxl's pictures came from a diffusers that ended at sigma_min; today's default is zero
    "KarrasDPM": (
        DPMSolverMultistepScheduler,
        {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    ),
    "K_EULER_ANCESTRAL": (EulerAncestralDiscreteScheduler, {}),
    "K_EULER": (EulerDiscreteScheduler, {}),
    "PNDM": (PNDMScheduler, {}),
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
