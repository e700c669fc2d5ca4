"""Token rows of texts."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

END = 49407
LONGEST = 77


class Tokens:
    """CLIP's tokenizer. Rows are padded to 77 tokens as the original does, or cut at the longest text."""

    def __init__(self, backbone: Path, padded: bool) -> None:
        self.tokenizer = Tokenizer.from_file(str(backbone / "tokenizer.json"))
        self.padded = padded

    def rows(self, texts: list[str]) -> Tensor:
        """Token ids `[texts, tokens]`; the first end token of a row is its end."""
        found = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        length = LONGEST if self.padded else max(map(len, found))
        return torch.tensor([ids + [END] * (length - len(ids)) for ids in found])


def ends(rows: Tensor) -> Tensor:
    """Positions of the end tokens."""
    return (rows == END).int().argmax(1)
