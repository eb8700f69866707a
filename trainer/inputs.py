"""Inputs of the door that depend on one another. Knows no torch."""

from collections.abc import Mapping


def check_together(inputs: Mapping[str, object]) -> None:
    """Check what no config sees: inputs that need one another.

    Raises:
        ValueError: One is missing; the text names it.
    """
    if inputs["skip_training"] and not inputs["init_weights"]:
        raise ValueError(
            "skip_training makes an archive of weights that there are: give them as init_weights"
        )
    if inputs["input_images"] is None and not inputs["skip_training"]:
        raise ValueError(
            "input_images is missing: give a zip or tar archive of 5 to 20 pictures (only "
            "skip_training does without)"
        )
    if inputs["class_images"] and not inputs["class_prompt"]:
        raise ValueError(
            "class_images needs a class_prompt that says what they show, such as 'a photo of a "
            "robot'"
        )
    if inputs["hf_token"] and not inputs["hf_repo_id"]:
        raise ValueError("hf_token is for a push: give hf_repo_id too, such as me/my-lora")


def choose_method(method: str, is_lora: bool) -> str:
    """Return the method, of which `is_lora=False` is cog-sdxl's spelling of `full`.

    Raises:
        ValueError: The two contradict.
    """
    if is_lora:
        return method
    if method in ("dora", "textual_inversion"):
        raise ValueError(
            f"is_lora=False asks for the whole U-Net and method={method} for other things: leave "
            "is_lora out"
        )
    return "full"
