"""The samplers by cog-sdxl's names."""

from collections.abc import Callable, Mapping

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)


def _karras_dpm(config: Mapping[str, object]) -> SchedulerMixin:
    # cog-sdxl's pictures came from a diffusers that ended at sigma_min; today's default is zero
    return DPMSolverMultistepScheduler.from_config(
        config, use_karras_sigmas=True, final_sigmas_type="sigma_min"
    )


SCHEDULERS: dict[str, Callable[[Mapping[str, object]], SchedulerMixin]] = {
    "DDIM": DDIMScheduler.from_config,
    "DPMSolverMultistep": DPMSolverMultistepScheduler.from_config,
    "HeunDiscrete": HeunDiscreteScheduler.from_config,
    "KarrasDPM": _karras_dpm,
    "K_EULER_ANCESTRAL": EulerAncestralDiscreteScheduler.from_config,
    "K_EULER": EulerDiscreteScheduler.from_config,
    "PNDM": PNDMScheduler.from_config,
}


def build_scheduler(name: str, config: Mapping[str, object]) -> SchedulerMixin:
    """Return the sampler `name` with the base model's noise schedule.

    Raises:
        ValueError: There is no such sampler.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}")
    return SCHEDULERS[name](config)
