"""Pivotal tuning of SDXL: the training loop, top to bottom.

Textual inversion (arXiv:2208.01618) of new tokens and LoRA (arXiv:2106.09685) of the U-Net train
together until the pivot (arXiv:2106.05744); from there on the text side is frozen, the captions'
embeddings are cached, the text encoders rest and the U-Net's part trains alone.
"""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor

from sdxl.concept import Concept, expand
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings
from sdxl.prompt import PromptEmbeds, TokenIds, encode_tokens, tokenize
from trainer.config import TrainConfig
from trainer.dataset import Batch, LatentDataset
from trainer.objective import (
    masked_means,
    min_snr_weights,
    offset_noise,
    prediction_target,
    squared_error,
)
from trainer.optim import build_optimizers, take_step, trainable_groups
from trainer.parts import drop_captions, training_parts
from trainer.schedule import TEXT_GROUPS, PivotalSchedule

StepCallback = Callable[[int, Tensor], None]
"""Called after each optimizer step with the number of steps done and all losses so far, a float32
tensor on the device: reading it waits for the device, so do that rarely."""


def train_loop(
    models: SDXLModels,
    embeddings: InstalledEmbeddings,
    concepts: Sequence[Concept],
    dataset: LatentDataset,
    class_dataset: LatentDataset | None,
    config: TrainConfig,
    accelerator: Accelerator,
    after_step: StepCallback,
) -> list[float]:
    """Train `models` in place. One pass of the outer loop is one optimizer step.

    Args:
        models: With LoRA already injected, if `config` trains LoRA.
        embeddings: The placeholder tokens, installed in `models`.
        concepts: Their triggers in the captions become the placeholder tokens.
        dataset: On the accelerator's device.
        class_dataset: Pictures of the class, for prior preservation (arXiv:2208.12242).
        config: The settings.
        accelerator: Device and precision.
        after_step: See `StepCallback`.

    Returns:
        The loss of each step.
    """
    device = accelerator.device
    schedule = PivotalSchedule.from_config(config, config.total_steps(len(dataset)))
    groups = trainable_groups(models, embeddings, config)
    optimizers = build_optimizers(groups, config.optimizer)

    generator = torch.Generator(device).manual_seed(config.seed)
    parts = training_parts(dataset, class_dataset, config)

    texts = [expand(text, concepts) for part in parts for text in part.dataset.captions]
    caption_ids = tokenize([*texts, ""], models.tokenizer, models.tokenizer_2).to(device)
    cached_captions: PromptEmbeds | None = None
    losses = torch.zeros(schedule.num_steps, device=device)

    for step in range(schedule.num_steps):
        if cached_captions is None and not schedule.trains_text(step):  # the pivot
            for group in TEXT_GROUPS:
                optimizers.pop(group, None)
                for parameter in groups.get(group, ()):
                    parameter.requires_grad_(False)
            with torch.no_grad(), accelerator.autocast():
                cached_captions = _encode(models, caption_ids)
            models.text_encoder.to("cpu")
            models.text_encoder_2.to("cpu")

        for _ in range(config.gradient_accumulation_steps):
            for part in parts:  # the pictures, and those of the class
                batch = part.dataset.batch(next(part.order), generator)
                rows = part.first_caption + batch.index
                rows = drop_captions(rows, part.caption_dropout, len(texts), generator)
                noise, timesteps = draw_noise(
                    batch.latents, models.noise_scheduler, config.noise_offset, generator
                )
                with accelerator.autocast():
                    if cached_captions is None:
                        prompt = _encode(models, caption_ids.select(rows))
                    else:
                        prompt = cached_captions.select(rows)
                    loss = diffusion_loss(models, batch, prompt, noise, timesteps, config.snr_gamma)
                weighted = loss * part.loss_weight / config.gradient_accumulation_steps
                accelerator.backward(weighted)
                losses[step] += weighted.detach()

        for group, optimizer in optimizers.items():
            take_step(optimizer, schedule.lr(group, step), config.max_grad_norm)
        if schedule.trains_text(step):
            embeddings.keep_norms()
        after_step(step + 1, losses[: step + 1])

    return losses.tolist()


def draw_noise(
    latents: Tensor, scheduler: DDPMScheduler, noise_offset: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return noise, as `latents`, and timesteps, (B,) int64, for a batch.

    The generator is on the device of `latents`.
    """
    device = latents.device
    noise = torch.randn(latents.shape, generator=generator, device=device)
    noise = offset_noise(noise, noise_offset, generator)
    num_timesteps = scheduler.config["num_train_timesteps"]
    timesteps = torch.randint(num_timesteps, (len(latents),), generator=generator, device=device)
    return noise, timesteps


def diffusion_loss(
    models: SDXLModels,
    batch: Batch,
    prompt: PromptEmbeds,
    noise: Tensor,
    timesteps: Tensor,
    snr_gamma: float,
) -> Tensor:
    """Return the denoising loss of a batch (arXiv:2006.11239, eq. 14).

    Args:
        models: The U-Net, and the noise scheduler that says what it predicts.
        batch: B pictures.
        prompt: The embeddings of their captions.
        noise: Of the shape of the latents.
        timesteps: (B,) int64.
        snr_gamma: Of `min_snr_weights`; 0 weighs every timestep alike.
    """
    scheduler = models.noise_scheduler
    unet_input = scheduler.add_noise(batch.latents, noise, timesteps)
    if batch.inpainting is not None:
        unet_input = torch.cat([unet_input, batch.inpainting], dim=1)
    prediction = models.unet(
        unet_input.to(prompt.prompt_embeds.dtype),
        timesteps,
        prompt.prompt_embeds,
        added_cond_kwargs={
            "text_embeds": prompt.pooled_prompt_embeds,
            "time_ids": batch.time_ids,  # float32: see sdxl.conditioning
        },
    ).sample
    target = prediction_target(scheduler, batch.latents, noise, timesteps)
    errors = masked_means(squared_error(prediction, target), batch.mask)
    if snr_gamma:
        errors = errors * min_snr_weights(scheduler, timesteps, snr_gamma)
    return errors.mean()


def _encode(models: SDXLModels, ids: TokenIds) -> PromptEmbeds:
    return encode_tokens(
        ids, models.text_encoder, models.text_encoder_2, models.tokenizer_2.eos_token_id
    )
