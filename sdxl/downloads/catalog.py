"""Every model that is downloaded by name: from where, which revision of it, and what it is for.

docs/models.md has the same table for people, and where each revision and size was read.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogModel:
    """A model on the Hugging Face hub.

    Attributes:
        name: By which `python -m sdxl.downloads` knows it.
        repo: Its repository.
        revision: The commit that is downloaded, and no other.
        size_mb: Of the weights that are downloaded, in MB (10^6 bytes), rounded.
        license: As the hub or its authors state it.
        purpose: What it is needed for.
        kind: Which of its files are downloaded; `sdxl.downloads.models` knows them.
    """

    name: str
    repo: str
    revision: str
    size_mb: int
    license: str
    purpose: str
    kind: Literal["model", "refiner", "vae"] = "model"


SDXL = CatalogModel(
    name="sdxl",
    repo="stabilityai/stable-diffusion-xl-base-1.0",
    revision="462165984030d82259a11f4367a4eed129e94a7b",
    size_mb=6938,
    license="CreativeML Open RAIL++-M",
    purpose="the base model: base_model=sdxl",
)
REFINER = CatalogModel(
    name="sdxl-refiner",
    repo="stabilityai/stable-diffusion-xl-refiner-1.0",
    revision="5d4cfe854c9a9a87939ff3653551c2b3c99a4356",
    size_mb=4520,
    license="CreativeML Open RAIL++-M",
    purpose="prediction with refine=expert_ensemble_refiner or base_image_refiner",
    kind="refiner",
)
VAE = CatalogModel(
    name="sdxl-vae",
    repo="madebyollin/sdxl-vae-fp16-fix",
    revision="207b116dae70ace3637169f1ddd2434b91b3a8cd",
    size_mb=335,
    license="MIT",
    purpose="a VAE that makes no black pictures in half precision",
    kind="vae",
)
SAFETY_CHECKER = CatalogModel(
    name="safety-checker",
    repo="CompVis/stable-diffusion-safety-checker",
    revision="1664e306d2258485321cbbd8083074c9474d4e41",
    size_mb=608,
    license="none stated",
    purpose="prediction, unless disable_safety_checker=true",
)
BLIP = CatalogModel(
    name="blip",
    repo="Salesforce/blip-image-captioning-large",
    revision="353689b859fcf0523410b1806dace5fb46ecdf41",
    size_mb=1880,
    license="BSD-3-Clause",
    purpose="captions: caption_model=blip",
)
FLORENCE2 = CatalogModel(
    name="florence2",
    repo="florence-community/Florence-2-base",
    revision="00921df66db728a9ceb750f5eca43e5c203a2051",
    size_mb=463,
    license="MIT",
    purpose="captions: caption_model=florence2",
)
CLIPSEG = CatalogModel(
    name="clipseg",
    repo="CIDAS/clipseg-rd64-refined",
    revision="325a839908143a34b409ae6f2910fa015ea390e6",
    size_mb=603,
    license="Apache-2.0",
    purpose="masks: mask_target_prompts",
)
SWIN2SR = CatalogModel(
    name="swin2sr",
    repo="caidas/swin2SR-realworld-sr-x4-64-bsrgan-psnr",
    revision="fbc21c5ea78579a0d415f74e06eefb5c77028475",
    size_mb=48,
    license="Apache-2.0",
    purpose="enlarging small pictures: upscale",
)
CATALOG = (SDXL, REFINER, VAE, SAFETY_CHECKER, BLIP, FLORENCE2, CLIPSEG, SWIN2SR)


def revision_of(repo: str) -> str | None:
    """Return the commit of `repo` that the catalog pins; None for repositories it does not have."""
    return next((model.revision for model in CATALOG if model.repo == repo), None)
