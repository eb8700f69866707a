"""CLIP tokenizers with a few hundred entries.

The vocabulary is CLIP's 512 byte symbols, the merges that make every caption word one token, and
the two special tokens.  Any other word falls to its letters.
"""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from samples.pocket.captions import vocabulary
from samples.pocket.models import POSITIONS

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def _byte_symbols() -> list[str]:
    """CLIP's printable stand-ins for all 256 bytes, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols of a word, with each occurrence of a pair made one symbol."""
    result: list[str] = []
    for symbol in symbols:
        # A symbol made by this very merge is never the pair's first half, since it is longer.
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first, until every word is one symbol."""
    spellings = [[*word[:-1], word[-1] + _WORD_END] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(symbols) > 1 for symbols in spellings):
        pairs = Counter(pair for s in spellings for pair in pairwise(s))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = [_joined(symbols, best) for symbols in spellings]
    return merges


def write(folder: Path, pad_token: str) -> None:
    """Writes the files of one tokenizer."""
    symbols = _byte_symbols()
    merges = _learn_merges(vocabulary())
    entries = [*symbols, *(s + _WORD_END for s in symbols), *("".join(m) for m in merges)]
    entries = [*dict.fromkeys(entries), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {entry: index for index, entry in enumerate(entries)}
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": POSITIONS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad_token,
    }
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def make_tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Both tokenizers; as in SDXL, they differ in what they pad with."""
    write(folder / "tokenizer", END)
    write(folder / "tokenizer_2", "!")
    return (
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
    )
