"""Prompts of several blocks of a tower, as PromptSRC and MaPLe place them."""

import torch
from torch import Tensor

from .towers import Towers


def drawn(tokens: int, width: int) -> Tensor:
    """Random prompts `[tokens, width]`."""
    return torch.randn(tokens, width) * 0.02


def image(towers: Towers, embedded: Tensor, prompts: list[Tensor]) -> Tensor:
    """Image features with prompts behind the patches, new ones in place of the old in each of the first blocks."""
    rows = len(embedded)

    def insert(at: int, stream: Tensor) -> Tensor:
        if not 0 < at < len(prompts):
            return stream
        own = prompts[at].expand(rows, -1, -1)
        return torch.cat([stream[:, : -own.shape[1]], own], 1)

    start = torch.cat([embedded, prompts[0].expand(rows, -1, -1)], 1)
    return towers.image_from(towers.vision_model.pre_layrnorm(start), insert=insert)


def text(towers: Towers, embedded: Tensor, ends: Tensor, prompts: list[Tensor]) -> Tensor:
    """Text features with prompts in the positions behind the start token."""
    def insert(at: int, stream: Tensor) -> Tensor:
        return placed(stream, prompts[at]) if 0 < at < len(prompts) else stream

    return towers.text_from(towers.start_text(placed(embedded, prompts[0])), ends, insert=insert)


def placed(stream: Tensor, prompt: Tensor) -> Tensor:
    """The prompt in place of the tokens behind the first."""
    return torch.cat([stream[:, :1], prompt.expand(len(stream), -1, -1), stream[:, 1 + len(prompt) :]], 1)
