"""The benchmark of training methods, without any training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.learning.groups import GROUPS
from bench.learning.page import write_page
from bench.learning.pictures import training_pictures
from bench.learning.results import Reference, Result, ResultFolder, Shown
from bench.learning.variants import BASELINE, BY_NAME, VARIANTS, Variant
from bench.methods import FINDINGS, main
from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess
from script.local_demo.settings import TRAIN
from trainer.config import TrainConfig

RESULT = Result(
    match=15.0,
    setting=1.0,
    held_out_loss=0.06,
    band_losses=[0.3, 0.1, 0.04, 0.01],
    table_share=0.25,
    class_match=14.5,
    class_difference=18.0,
    archive_bytes=2_887_680,
    weights_bytes=1_400_000,
    seconds=41.4,
    num_threads=2,
)
REFERENCE = Reference(
    floor=11.15,
    ceiling=21.74,
    match=10.7,
    setting=0.94,
    held_out_loss=0.0787,
    band_losses=[0.31, 0.14, 0.055, 0.011],
    table_share=0.0,
    class_match=11.66,
)


def shown(value: int) -> Shown:
    def pictures(count: int) -> np.ndarray:
        return np.full((count, 128, 128, 3), value, np.uint8)

    return {"subject": pictures(16), "class": pictures(8), "plain": pictures(8)}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base" / "unet"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"first")
    return folder.parent


@pytest.fixture
def results(tmp_path: Path, base: Path) -> ResultFolder:
    return ResultFolder(tmp_path / "results", base)


def keep_two_seeds(results: ResultFolder) -> None:
    results.keep_reference(REFERENCE, shown(40), shown(200)["subject"])
    for seed, match in enumerate((15.72, 16.13)):
        result = replace(RESULT, match=match, seconds=40.0 + 3 * seed)
        results.keep(BY_NAME[BASELINE], seed, result, shown(120))


def row_of(page: str, name: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_name_is_given_once() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert len({group.name for group in GROUPS}) == len(GROUPS)


def test_every_variant_is_in_a_table_and_every_row_is_a_variant() -> None:
    assert {name for group in GROUPS for name in group.variants} == set(BY_NAME)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_is_a_run_that_the_trainer_accepts(variant: Variant) -> None:
    config = variant.config(seed=2)
    assert config.seed == 2
    assert {name: getattr(config, name) for name in variant.changes} == dict(variant.changes)


def test_no_two_variants_are_the_same_training() -> None:
    trainings = {(variant.config(0), variant.pictures) for variant in VARIANTS}
    assert len(trainings) == len(VARIANTS)


def test_the_baseline_is_the_demo() -> None:
    baseline = BY_NAME[BASELINE]
    assert (baseline.changes, baseline.pictures) == ({}, "sample")
    demo = {name: value for name, value in TRAIN.items() if name != "base_model"}
    previews = {"sample_prompts": baseline.config(0).sample_prompts}
    assert baseline.config(0) == TrainConfig(**demo, **previews)


def test_other_settings_pictures_seeds_and_bases_are_other_trainings(
    results: ResultFolder, base: Path, tmp_path: Path
) -> None:
    variant = BY_NAME["rank_2"]
    (base / "unet" / "weights.safetensors").write_bytes(b"second")
    keys = {
        results.key(variant, 0),
        results.key(variant, 1),
        results.key(replace(variant, changes={"lora_rank": 3}), 0),
        results.key(replace(variant, pictures="one_setting"), 0),
        ResultFolder(tmp_path / "results", base).key(variant, 0),
    }
    assert len(keys) == 5
    assert results.key(replace(variant, description="another"), 0) in keys


def test_a_result_is_found_again_until_its_settings_change(results: ResultFolder) -> None:
    variant = BY_NAME["dora"]
    assert results.find(variant, 0) is None
    results.keep(variant, 0, RESULT, shown(7))
    assert results.find(variant, 0) == RESULT
    assert results.results(variant) == {0: RESULT}
    assert (results.strip("dora", "plain", 0) == 7).all()
    assert results.strip("dora", "subject", 0).shape == (16, 128, 128, 3)
    changed = replace(variant, changes={**variant.changes, "lora_rank": 3})
    assert results.find(changed, 0) is None
    assert results.results(changed) == {}


def test_results_of_a_name_that_begins_alike_are_not_mixed_in(results: ResultFolder) -> None:
    results.keep(BY_NAME["rank_32_alpha_8"], 0, RESULT, shown(7))
    assert results.results(BY_NAME["rank_32"]) == {}


def test_the_page_has_means_ranges_and_costs(results: ResultFolder, tmp_path: Path) -> None:
    keep_two_seeds(results)
    findings = tmp_path / "findings.md"
    findings.write_text("# A heading of mine\n")
    write_page(results, findings, tmp_path / "methods.md")
    page = (tmp_path / "methods.md").read_text()
    assert page.startswith("# A heading of mine\n")
    assert page.index("loss at most noise") < page.index("0.0110") < page.index("0.0100")
    assert row_of(page, BASELINE)[2:] == [
        "the demo's",
        "2",
        "15.93 (15.7-16.1)",
        "1.00 (1.00-1.00)",
        "0.0600 (0.0600-0.0600)",
        "14.50 (14.5-14.5)",
        "1.40",
        "2.89",
        "42",
    ]
    assert row_of(page, "base")[4:] == ["10.70", "0.94", "0.0787", "11.66", "", "", ""]
    known = "own world get 11.15, true views 21.74."
    assert known in " ".join(page.split())
    assert "(threads: 2)" in page
    assert "Not trained: lora_alone, lora_alone_toy" in page


def test_the_best_method_comes_first(results: ResultFolder, tmp_path: Path) -> None:
    keep_two_seeds(results)
    results.keep(BY_NAME["ti_2"], 0, replace(RESULT, match=12.2), shown(1))
    results.keep(BY_NAME["full"], 0, replace(RESULT, match=17.0), shown(1))
    write_page(results, FINDINGS, tmp_path / "methods.md")
    page = (tmp_path / "methods.md").read_text()
    places = [page.index(f"| {name} |") for name in ("full", BASELINE, "ti_2")]
    assert places == sorted(places)
    assert row_of(page, "full")[2:5] == [
        "`method=full`, `unet_learning_rate=0.0003`",
        "1",
        "17.00",
    ]


def test_the_sheet_shows_true_views_the_base_and_each_trained_variant(
    results: ResultFolder, tmp_path: Path
) -> None:
    keep_two_seeds(results)
    write_page(results, FINDINGS, tmp_path / "methods.md")
    page = (tmp_path / "methods.md").read_text()
    for group in GROUPS:
        linked = f"](methods/{group.name}.jpg)" in page
        assert linked == (BASELINE in group.variants)
        assert linked == (tmp_path / "methods" / f"{group.name}.jpg").exists()
    with Image.open(tmp_path / "methods" / "methods.jpg") as sheet:
        pixels = np.asarray(sheet.convert("L")).astype(int)
    middles = pixels[[24 + row * 132 + 64 for row in range(3)], -70]
    assert np.abs(middles - (200, 40, 120)).max() <= 2


def test_a_page_without_results_says_what_to_run(results: ResultFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run script/bench methods without --page"):
        write_page(results, FINDINGS, tmp_path / "methods.md")


def test_an_unknown_variant_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nonsense"])
    assert "lora_alone" in capsys.readouterr().err


def test_true_masks_reach_the_trainer(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos = training_pictures("one_setting_masked", "robot", folder)
    config = PreprocessConfig(resolution=128, autocaption=False, verbose=False)
    manifest = preprocess(photos, config, tmp_path / "prepared")
    assert len(manifest.examples) == 10
    for example in manifest.examples:
        assert example.caption == "a photo of TOK"
        assert example.mask_path is not None
        with Image.open(manifest.directory / example.mask_path) as mask:
            share = (np.asarray(mask) > 127).mean()
        assert 0.03 < share < 0.6
