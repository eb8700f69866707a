"""A finished training goes to the Hugging Face hub, and is not lost if it cannot."""

import logging
from collections.abc import Sequence
from pathlib import Path

from sdxl.weights.push import HubRepo
from trainer.report import Preview

logger = logging.getLogger(__name__)


def publish(repo: HubRepo, archive: Path, previews: Sequence[Preview]) -> None:
    """Push the archive and what the trained model made of the previews' prompts.

    A failure is a warning that says how to push later.
    """
    try:
        address = repo.push(archive, [(preview.prompt, preview.after) for preview in previews])
    except ValueError as error:
        logger.warning(
            "hf_repo_id: %s. The training is not lost: its archive is the output as always, and "
            "can be pushed later: HF_TOKEN=... python -m sdxl.weights push %s --repo %s",
            error,
            archive.name,
            repo.repo_id,
        )
    else:
        logger.info("Pushed to %s", address)
