"""The rules for captions: the token is always in them, the user's own words win."""

from collections.abc import Sequence

from sdxl.concept import occurs


def with_trigger(caption: str, triggers: Sequence[str]) -> str:
    """Return `caption`, with the first of `triggers` put in front if it contains none of them."""
    if any(occurs(trigger, caption) for trigger in triggers):
        return caption
    return f"{triggers[0]}, {caption}" if caption else triggers[0]


def check_that_all_occur(triggers: Sequence[str], captions: Sequence[str]) -> None:
    """See that every trigger can be learned.

    Raises:
        ValueError: No caption contains one of them; the text names it.
    """
    for trigger in triggers:
        if not any(occurs(trigger, caption) for caption in captions):
            raise ValueError(
                f"token_map names {trigger}, but no caption contains it, so it cannot be learned: "
                "put captions that say which picture shows it into the archive (captions.csv, or "
                "name.txt beside name.jpg)"
            )


def make_caption(prefix: str, description: str, suffix: str) -> str:
    """Join the parts of a caption that is made here; `description` may be empty.

    A comma or blank that would join the prefix to a missing description is dropped.
    """
    if not description:
        prefix = prefix.rstrip(" ,")
        if suffix and suffix[0] not in " ,.;:!?":
            suffix = f", {suffix}" if prefix else suffix
    return tidy(f"{prefix}{description}{suffix}").rstrip(" ,")


def tidy(text: str) -> str:
    """Return `text` on one line, with single blanks and none at its ends."""
    return " ".join(text.split())
