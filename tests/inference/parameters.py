"""Reads the text in pictures as AUTOMATIC1111's web UI does."""

import json


def read_parameters(text: str) -> dict[str, str]:
    """Return every setting by its name there, with `Prompt` and `Negative prompt`."""
    *prompts, line = text.strip().split("\n")
    prompt, _, negative = "\n".join(each.strip() for each in prompts).partition("Negative prompt:")
    found = {"Prompt": prompt.strip(), "Negative prompt": negative.strip()}
    while line:
        name, _, rest = line.partition(": ")
        if rest.startswith('"'):
            found[name], end = json.JSONDecoder().raw_decode(rest)
            line = rest[end:].removeprefix(",").strip()
        else:
            found[name], _, line = rest.partition(", ")
    return found
