import ast
import json

import pytest

from script.local_cog.schema import Mode
from script.openapi import MODES, REPOSITORY, document, document_path

# replicate/cog-sdxl's own, in its order
COG_SDXL: dict[Mode, tuple[str, ...]] = {
    "train": (
        "input_images", "seed", "resolution", "train_batch_size", "num_train_epochs",
        "max_train_steps", "is_lora", "unet_learning_rate", "ti_lr", "lora_lr", "lora_rank",
        "lr_scheduler", "lr_warmup_steps", "token_string", "caption_prefix", "mask_target_prompts",
        "crop_based_on_salience", "use_face_detection_instead", "clipseg_temperature", "verbose",
        "checkpointing_steps", "input_images_filetype",
    ),
    "predict": (
        "prompt", "negative_prompt", "image", "mask", "width", "height", "num_outputs",
        "scheduler", "num_inference_steps", "guidance_scale", "prompt_strength", "seed", "refine",
        "high_noise_frac", "refine_steps", "apply_watermark", "lora_scale", "replicate_weights",
        "disable_safety_checker",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_the_public_interface_is_the_committed_one(mode: Mode):
    # a change of it is to be seen in review: python -m script.openapi renews the documents
    assert json.loads(document(mode)) == json.loads(document_path(mode).read_text())
    assert document(mode) == document_path(mode).read_text()


@pytest.mark.parametrize("mode", MODES)
def test_the_inputs_of_cog_sdxl_come_first_in_its_order(mode: Mode):
    inputs = json.loads(document_path(mode).read_text())["inputs"]
    assert tuple(inputs)[: len(COG_SDXL[mode])] == COG_SDXL[mode]
    assert [each["x-order"] for each in inputs.values()] == list(range(len(inputs)))
    assert all(each["description"].endswith((".", "model")) for each in inputs.values())


def is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.List):
        return all(map(is_literal, node.elts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant)


@pytest.mark.parametrize("mode", MODES)
def test_cog_can_read_the_signature_without_running_it(mode: Mode):
    tree = ast.parse((REPOSITORY / f"{mode}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    (door,) = [node for node in functions if node.name == mode]
    assert len(door.args.defaults) == len(door.args.args) - (mode == "predict")
    for default in door.args.defaults:
        assert isinstance(default, ast.Call)
        assert ast.unparse(default.func) == "Input"
        assert not default.args
        assert all(is_literal(keyword.value) for keyword in default.keywords), ast.unparse(default)
