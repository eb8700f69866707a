"""The real transformers classes with tiny sizes and random weights, saved as if from a hub."""

from pathlib import Path

import torch
from transformers import (
    BartConfig,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    RobertaTokenizer,
    Swin2SRConfig,
    Swin2SRForImageSuperResolution,
    ViTImageProcessorPil,
)
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

WORDS = [
    "a",
    "the",
    "red",
    "blue",
    "robot",
    "cat",
    "on",
    "in",
    "with",
    "hill",
    "sea",
    "face",
    "of",
    "and",
]
SIDE = 64


def save_clipseg(folder: Path) -> Path:
    """Save a CLIPSeg that looks at 64 px; its text encoder spells."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(f"{letter}</w>" for letter in letters),
    ]
    tokenizer = CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=32
    )
    image_processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    layers = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_factor": 8.0,
    }
    text = layers | {"vocab_size": len(pieces), "max_position_embeddings": 32}
    text |= {"bos_token_id": 0, "eos_token_id": 1}
    config = CLIPSegConfig(
        text_config=text,
        vision_config=layers | {"image_size": SIDE, "patch_size": 16},
        projection_dim=16,
        reduce_dim=8,
        extract_layers=[0, 1],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    model = CLIPSegForImageSegmentation(config)
    CLIPSegProcessor(image_processor, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def save_swin2sr(folder: Path) -> Path:
    """Save a Swin2SR that enlarges four times."""
    torch.manual_seed(0)
    config = Swin2SRConfig(
        image_size=32,
        embed_dim=16,
        depths=[1],
        num_heads=[2],
        window_size=8,
        upscale=4,
        upsampler="nearest+conv",
    )
    Swin2SRForImageSuperResolution(config).save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    """Save a BLIP that looks at 64 px and says random words of `WORDS`."""
    torch.manual_seed(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocab = {word: number for number, word in enumerate(special + WORDS)}
    tokenizer = BertTokenizer(vocab=vocab, additional_special_tokens=["[DEC]"])
    layers = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = layers | {
        "vocab_size": len(vocab),
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "bos_token_id": vocab["[DEC]"],
        "eos_token_id": vocab["[SEP]"],
        "sep_token_id": vocab["[SEP]"],
        "pad_token_id": vocab["[PAD]"],
        "initializer_range": 0.5,
        "max_position_embeddings": 80,
    }
    vision = layers | {"image_size": SIDE, "patch_size": 16, "initializer_range": 0.5}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    image_processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    BlipProcessor(image_processor, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def save_florence2(folder: Path) -> Path:
    """Save a Florence-2 that looks at 64 px and says random words of `WORDS`."""
    torch.manual_seed(0)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>"]
    vocab = {word: number for number, word in enumerate(special + [f"\u0120{w}" for w in WORDS])}
    tokenizer = RobertaTokenizer(vocab=vocab, extra_special_tokens={"image_token": "<image>"})
    stages = 4
    vision = Florence2VisionConfig(
        depths=[1] * stages,
        embed_dim=[8, 8, 16, 16],
        num_heads=[2] * stages,
        num_groups=[2] * stages,
        window_size=2,
        projection_dim=32,
    )
    text = BartConfig(
        vocab_size=len(vocab),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.5,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        max_position_embeddings=128,
    )
    config = Florence2Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_id=vocab["<image>"]
    )
    model = Florence2ForConditionalGeneration(config)
    image_processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_seq_length=5
    )
    image_processor.image_seq_length = 5  # 2 x 2 patches and their mean
    Florence2Processor(image_processor, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
