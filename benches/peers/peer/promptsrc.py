"""PromptSRC: prompts of both towers, held to the frozen features."""

import torch
from torch.nn import functional as F

from . import prompts
from .meter import Meter
from .photos import Loader, Photos, centre
from .schedules import sgd_factor
from .task import Task
from .texts import Tokens, ends
from .towers import Towers, unit

TOKENS, DEPTH, TEMPLATES = 4, 9, 60
RATE, TEXT_WEIGHT, IMAGE_WEIGHT = 0.0025, 25.0, 10.0


def run(task: Task) -> dict:
    """`steps` steps; the official way decodes the images and runs the frozen tower in each."""
    torch.manual_seed(1)
    towers, meter, photos = Towers.open(task.backbone, eager=task.official), Meter(), Photos.open(task.data)
    tokens, scale = Tokens(task.backbone, padded=task.official), towers.scale
    rows = tokens.rows(photos.prompts())
    with torch.no_grad():
        frozen_text = unit(sum(templates(towers, tokens, photos)) / TEMPLATES)
        embedded, last = towers.embed_text(rows), ends(rows)
        widths = embedded.shape[-1], towers.vision_model.pre_layrnorm.weight.shape[0]
    text_prompts = [embedded[0, 1 : 1 + TOKENS].clone(), *(prompts.drawn(TOKENS, widths[0]) for _ in range(DEPTH - 1))]
    image_prompts = [prompts.drawn(TOKENS, widths[1]) for _ in range(DEPTH)]
    trained = [prompt.requires_grad_(True) for prompt in text_prompts + image_prompts]
    optimizer = torch.optim.SGD(trained, RATE * sgd_factor(scale), momentum=0.9, weight_decay=5e-4)
    loader = Loader(centre, 32)
    if not task.official:
        with torch.no_grad():
            pixels = loader.all(photos.paths)
            all_patches, all_frozen = towers.vision_model.embed(pixels), unit(towers.image(pixels))
    for step in range(task.steps):
        with meter.unit():
            turn = photos.turn(step, task.batch)
            paths, labels = [photos.paths[at] for at in turn], photos.labels[turn]
            if task.official:
                pixels = loader.all(paths)
                with torch.no_grad():
                    frozen_image = unit(towers.image(pixels))
                patches = towers.vision_model.embed(pixels)
            else:
                patches, frozen_image = all_patches[turn], all_frozen[turn]
            image = unit(prompts.image(towers, patches, image_prompts))
            text = unit(prompts.text(towers, embedded, last, text_prompts))
            logits = scale * image @ text.T
            own, frozen = logits.log_softmax(1), (scale * frozen_image @ frozen_text.T).log_softmax(1)
            loss = F.cross_entropy(logits, labels)
            loss = loss + TEXT_WEIGHT * (text - frozen_text).abs().mean() + IMAGE_WEIGHT * (image - frozen_image).abs().mean()
            loss = loss + F.kl_div(own, frozen, reduction="sum", log_target=True) / own.numel()
            meter.learn(optimizer, loss)
    return meter.report()


def templates(towers: Towers, tokens: Tokens, photos: Photos) -> list[torch.Tensor]:
    """Frozen class features, not normalised, for sixty templates of about the usual length."""
    found = []
    for at in range(TEMPLATES):
        rows = tokens.rows(photos.prompts(f"a photo number {at} of the {{}}."))
        found.append(towers.text(rows, ends(rows)))
    return found
