"""Pivotal tuning of SDXL: the training loop, top to bottom.

Textual inversion (arXiv:2208.01618) of new tokens and LoRA (arXiv:2106.09685) of the U-Net train
together until the pivot (arXiv:2106.05744); from there on the embeddings are frozen, the captions'
embeddings are cached, the text encoders rest and the U-Net's part trains alone.
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from sdxl.concept import Concept, expand
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings
from sdxl.prompt import PromptEmbeds, TokenIds, encode_tokens, tokenize
from trainer.config import TrainConfig
from trainer.dataset import Batch, LatentDataset
from trainer.objective import masked_mean, prediction_target, squared_error
from trainer.optim import build_optimizer, trainable_groups
from trainer.schedule import PivotalSchedule

StepCallback = Callable[[int, Tensor], None]
"""Called after each optimizer step with the number of steps done and all losses so far, a float32
tensor on the device: reading it waits for the device, so do that rarely."""


def train_loop(
    models: SDXLModels,
    embeddings: InstalledEmbeddings,
    concept: Concept,
    dataset: LatentDataset,
    config: TrainConfig,
    accelerator: Accelerator,
    after_step: StepCallback,
) -> list[float]:
    """Train `models` in place. One pass of the outer loop is one optimizer step.

    Args:
        models: With LoRA already injected, if `config.method` trains LoRA.
        embeddings: The placeholder tokens, installed in `models`.
        concept: Its trigger in the captions becomes the placeholder tokens.
        dataset: On the accelerator's device.
        config: The settings.
        accelerator: Device and precision.
        after_step: See `StepCallback`.

    Returns:
        The loss of each step.
    """
    device = accelerator.device
    schedule = PivotalSchedule.from_config(config, config.total_steps(len(dataset)))
    groups = trainable_groups(models, embeddings, config)
    optimizer = build_optimizer(groups)

    order_generator = torch.Generator().manual_seed(config.seed)
    noise_generator = torch.Generator(device).manual_seed(config.seed)
    order = dataset.batches(config.train_batch_size, order_generator)

    captions = [expand(caption, [concept]) for caption in dataset.captions]
    caption_ids = tokenize(captions, models.tokenizer, models.tokenizer_2).to(device)
    cached_captions: PromptEmbeds | None = None
    losses = torch.zeros(schedule.num_steps, device=device)

    for step in range(schedule.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr(group["name"], step)

        if cached_captions is None and not schedule.trains_embeddings(step):  # the pivot
            for rows in groups["placeholder_embeddings"]:
                rows.requires_grad_(False)
            with torch.no_grad(), accelerator.autocast():
                cached_captions = _encode(models, caption_ids)
            models.text_encoder.to("cpu")
            models.text_encoder_2.to("cpu")

        for _ in range(config.gradient_accumulation_steps):
            batch = dataset.batch(next(order), noise_generator)
            with accelerator.autocast():
                if cached_captions is None:
                    prompt = _encode(models, caption_ids.select(batch.index))
                else:
                    prompt = cached_captions.select(batch.index)
                loss = diffusion_loss(models, batch, prompt, noise_generator)
            accelerator.backward(loss / config.gradient_accumulation_steps)
            losses[step] += loss.detach() / config.gradient_accumulation_steps

        for parameters in groups.values():
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        after_step(step + 1, losses[: step + 1])

    return losses.tolist()


def diffusion_loss(
    models: SDXLModels, batch: Batch, prompt: PromptEmbeds, generator: torch.Generator
) -> Tensor:
    """Return the denoising loss of a batch at random timesteps (arXiv:2006.11239, eq. 14).

    Args:
        models: The U-Net, and the noise scheduler that says what it predicts.
        batch: B pictures.
        prompt: The embeddings of their captions.
        generator: On the batch's device, for noise and timesteps.
    """
    scheduler = models.noise_scheduler
    latents = batch.latents
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    timesteps = torch.randint(
        scheduler.config["num_train_timesteps"],
        (len(latents),),
        generator=generator,
        device=latents.device,
    )
    noisy_latents = scheduler.add_noise(latents, noise, timesteps)
    prediction = models.unet(
        noisy_latents.to(prompt.prompt_embeds.dtype),
        timesteps,
        prompt.prompt_embeds,
        added_cond_kwargs={
            "text_embeds": prompt.pooled_prompt_embeds,
            "time_ids": batch.time_ids,  # float32: see sdxl.conditioning
        },
    ).sample
    target = prediction_target(scheduler, latents, noise, timesteps)
    return masked_mean(squared_error(prediction, target), batch.mask)


def _encode(models: SDXLModels, ids: TokenIds) -> PromptEmbeds:
    return encode_tokens(
        ids, models.text_encoder, models.text_encoder_2, models.tokenizer_2.eos_token_id
    )
