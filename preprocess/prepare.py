"""The whole preparation, in the order in which it happens."""

import tempfile
from dataclasses import replace
from pathlib import Path

from preprocess.archive import extract_archive
from preprocess.caption_files import read_captions
from preprocess.captions import check_that_all_occur, make_caption, with_trigger
from preprocess.config import PreprocessConfig
from preprocess.manifest import CAPTIONS_NAME, MANIFEST_NAME, Manifest, TrainingExample
from preprocess.model_passes import (
    ModelSources,
    add_face_masks,
    add_prompt_masks,
    describe_pictures,
    upscale_small,
)
from preprocess.pictures import (
    IMAGES_DIR,
    WorkingPicture,
    crop_pictures,
    decode_pictures,
)
from preprocess.reporting import (
    log_added_token,
    log_captions,
    log_examples,
    log_found,
    no_pictures,
    unreadable,
    warn_about_small,
)
from preprocess.sources import Problem, sort_files
from sdxl.decoding import own_pixel_limit


def preprocess(
    archive: Path, config: PreprocessConfig, out_dir: Path, models: ModelSources | None = None
) -> Manifest:
    """Prepare the pictures of `archive` for training.

    Args:
        archive: zip, tar (also compressed), folder or single picture.
        config: What to do with the pictures.
        out_dir: Gets `manifest.jsonl`, `captions.csv`, `images/` and, if there are masks,
            `masks/`. Created if missing; must not hold a prepared set yet. It is the caller's;
            the folder in which the archive is unpacked is removed in any case.
        models: Where captioners and the like come from; None for the usual repositories.

    Raises:
        ValueError: with a sentence for the user, if anything in the archive cannot be used or a
            model that `config` asks for cannot be had.
    """
    if (out_dir / MANIFEST_NAME).exists() or (out_dir / IMAGES_DIR).exists():
        raise ValueError(f"{out_dir} already holds prepared pictures: give an empty folder")
    models = models or ModelSources()
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=out_dir) as work, own_pixel_limit():
        pictures, user_captions = _read_pictures(archive, config, Path(work))
        warn_about_small(pictures)
        pictures = upscale_small(pictures, models.swin2sr)
        pictures = _add_masks(pictures, config, models)
        prepared_dir = Path(work, "prepared")
        prepared_dir.mkdir()
        examples = crop_pictures(
            pictures,
            prepared_dir,
            crop_based_on_salience=config.crop_based_on_salience,
            mask_background_weight=config.mask_background_weight,
        )
        examples = _caption(examples, user_captions, config, models, prepared_dir)
        manifest = Manifest(directory=prepared_dir, examples=tuple(examples))
        manifest.save()
        Path(prepared_dir, CAPTIONS_NAME).write_bytes(manifest.captions_csv())
        for path in prepared_dir.iterdir():
            path.rename(out_dir / path.name)
    if config.verbose:
        log_examples(manifest.examples)
    return replace(manifest, directory=out_dir)


def _read_pictures(
    archive: Path, config: PreprocessConfig, work_dir: Path
) -> tuple[list[WorkingPicture], dict[str, str]]:
    """Unpack and decode; return the pictures and the user's captions by picture name."""
    unpacked_dir, decoded_dir = work_dir / "unpacked", work_dir / "decoded"
    unpacked_dir.mkdir()
    decoded_dir.mkdir()
    extracted = extract_archive(archive, unpacked_dir, filetype=config.input_images_filetype)
    files = sort_files(extracted.files)
    if not files.pictures:
        if files.problems:
            raise unreadable(archive.name, files.problems)
        raise no_pictures(archive.name, extracted)
    log_found(archive.name, extracted, files)
    captions = read_captions(files.caption_files, [source.file.name for source in files.pictures])
    log_captions(captions, files)
    decoded = decode_pictures(
        files.pictures,
        decoded_dir,
        resolution=config.resolution,
        aspect_ratio_buckets=config.aspect_ratio_buckets,
        upscale=config.upscale,
    )
    problems = [*files.problems, *(item for item in decoded if isinstance(item, Problem))]
    if problems:
        raise unreadable(archive.name, list(dict.fromkeys(problems)))
    pictures = [item for item in decoded if isinstance(item, WorkingPicture)]
    return pictures, captions.by_picture


def _add_masks(
    pictures: list[WorkingPicture], config: PreprocessConfig, models: ModelSources
) -> list[WorkingPicture]:
    if config.use_face_detection_instead:
        return add_face_masks(pictures)
    if config.mask_prompt is not None:
        return add_prompt_masks(
            pictures, config.mask_prompt, config.clipseg_temperature, models.clipseg
        )
    return pictures


def _caption(
    examples: list[TrainingExample],
    user_captions: dict[str, str],
    config: PreprocessConfig,
    models: ModelSources,
    images_in: Path,
) -> list[TrainingExample]:
    """Give each example the user's caption, or one that is made here; both with the token."""
    triggers = config.triggers
    descriptions: dict[str, str] = {}
    if config.autocaption and config.caption_model != "none":
        undescribed = {
            example.example_id: images_in / example.image_path
            for example in examples
            if example.source_name not in user_captions
        }
        descriptions = describe_pictures(undescribed, config.caption_model, models)
    captioned: list[TrainingExample] = []
    lacking: list[str] = []
    for example in examples:
        text = user_captions.get(example.source_name) or make_caption(
            config.resolved_caption_prefix,
            descriptions.get(example.example_id, ""),
            config.caption_suffix,
        )
        caption = with_trigger(text, triggers)
        notes = example.notes
        if caption != text:
            lacking.append(example.source_name)
            notes = (*notes, f"{triggers[0]} put in front of the caption")
        captioned.append(replace(example, caption=caption, notes=notes))
    log_added_token(lacking, triggers[0])
    check_that_all_occur(triggers, [example.caption for example in captioned])
    return captioned
