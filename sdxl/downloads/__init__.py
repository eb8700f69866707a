"""From the name of a model or the address of a file to a path on this machine.

Only the doors and `preprocess` cause downloads, and all of them come through here.
`python -m sdxl.downloads` lists the models that are downloaded by name, and fetches them ahead.
"""

from sdxl.downloads.catalog import (
    BLIP,
    CATALOG,
    CLIPSEG,
    FLORENCE2,
    REFINER,
    SAFETY_CHECKER,
    SDXL,
    SWIN2SR,
    VAE,
    CatalogModel,
)
from sdxl.downloads.files import default_cache_dir, fetch_file, fetch_weights
from sdxl.downloads.models import (
    POCKET,
    BaseModelFiles,
    is_same_base,
    resolve_base,
    resolve_configs,
    resolve_model,
    resolve_refiner,
    resolve_vae,
)

__all__ = [
    "BLIP",
    "CATALOG",
    "CLIPSEG",
    "FLORENCE2",
    "POCKET",
    "REFINER",
    "SAFETY_CHECKER",
    "SDXL",
    "SWIN2SR",
    "VAE",
    "BaseModelFiles",
    "CatalogModel",
    "default_cache_dir",
    "fetch_file",
    "fetch_weights",
    "is_same_base",
    "resolve_base",
    "resolve_configs",
    "resolve_model",
    "resolve_refiner",
    "resolve_vae",
]
