"""The rules for captions: the token is always in them, the user's own words win."""

from sdxl.concept import occurs


def with_token(caption: str, token_string: str) -> str:
    """Return `caption`, with `token_string` put in front if it is missing."""
    if occurs(token_string, caption):
        return caption
    return f"{token_string}, {caption}" if caption else token_string


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
