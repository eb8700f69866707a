"""A base model made ready for training: loaded, and with what trains put into it."""

import torch
from accelerate import Accelerator

from sdxl.downloads import BaseModelFiles
from sdxl.lora import LoraSettings, load_lora
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels, load_models
from sdxl.placeholder_embeddings import InstalledEmbeddings, PlaceholderEmbeddings
from sdxl.weights.networks import lora_by_network
from sdxl.weights.trained import TrainedWeights
from trainer.config import TrainConfig
from trainer.continued import NOTHING, continue_embeddings, continue_lora, continue_unet


def load_base(base: BaseModelFiles, config: TrainConfig, accelerator: Accelerator) -> SDXLModels:
    """Load the base model to the accelerator's device, frozen."""
    frozen_dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    models = load_models(base.weights, accelerator.device, frozen_dtype, base.configs)
    if config.method == "full":
        # bfloat16 weights would swallow steps of 1e-6: train float32 masters under autocast
        models.unet.to(torch.float32)
    return models


def add_trainables(
    models: SDXLModels, config: TrainConfig, init: TrainedWeights = NOTHING
) -> InstalledEmbeddings:
    """Put LoRA and the new tokens into `models`, at the start values of `config.seed`.

    Args:
        models: Changed in place.
        config: Says what trains, and with `init` went through `continue_config`.
        init: An earlier fine-tune, all of which goes into `models`: what does not train as well.

    Raises:
        ValueError: `init` does not fit the base model.
    """
    generator = torch.Generator().manual_seed(config.seed)
    drawn = PlaceholderEmbeddings.initial(config.concepts, config.ti_init, models, generator)
    embeddings = continue_embeddings(drawn, config.concepts, init)
    settings = LoraSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha or config.lora_rank,
        dropout=config.lora_dropout,
        use_dora=config.method == "dora",
    )
    if init.unet:
        continue_unet(models.unet, init.unet)
    unet_layers = LORA_TARGET_MODULES[config.lora_target]
    for network, state in lora_by_network(models, init):
        is_unet = network is models.unet
        if config.trains_lora if is_unet else config.text_encoder_lr:
            layers = unet_layers if is_unet else TEXT_ENCODER_MODULES
            continue_lora(network, state, layers, settings, generator)
        elif state:
            load_lora(network, state)
    return embeddings.install(models)


def set_training_mode(models: SDXLModels, is_training: bool, checkpointing: bool) -> None:
    """Switch dropout and gradient checkpointing, which act in training mode alone."""
    if checkpointing:
        models.unet.enable_gradient_checkpointing()
    for network in (models.unet, models.text_encoder, models.text_encoder_2):
        network.train(is_training)
        if checkpointing and network is not models.unet:
            network.activation_checkpointing_enable()
