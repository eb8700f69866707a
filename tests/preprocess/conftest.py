import pytest

from preprocess.model_passes import ModelSources
from tests.preprocess.tiny_models import save_blip, save_clipseg, save_florence2, save_swin2sr


@pytest.fixture(scope="session")
def tiny_sources(tmp_path_factory: pytest.TempPathFactory) -> ModelSources:
    """Return local directories of tiny models with random weights."""
    folder = tmp_path_factory.mktemp("models")
    return ModelSources(
        clipseg=str(save_clipseg(folder / "clipseg")),
        swin2sr=str(save_swin2sr(folder / "swin2sr")),
        blip=str(save_blip(folder / "blip")),
        florence2=str(save_florence2(folder / "florence2")),
    )


@pytest.fixture
def no_models() -> ModelSources:
    """Return names under which no model can be had, whether or not there is a network."""
    return ModelSources(**dict.fromkeys(("clipseg", "swin2sr", "blip", "florence2"), "no such"))
