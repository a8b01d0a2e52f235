"""Loss and perplexity of text models.

Shapes: T tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.text import TextTransformer

__all__ = ["TextScore", "score_texts"]

_NOTHING = -100  # in place of a target: past the end of a text


@dataclass(frozen=True)
class TextScore:
    """Score of a model on some texts.

    Attributes:
        texts: Number of texts.
        tokens: Number of tokens that were predicted: all but the first of each text.
        loss: Mean cross-entropy of these tokens, in nats.
    """

    texts: int
    tokens: int
    loss: float

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@torch.inference_mode()
def score_texts(
    model: TextTransformer, texts: Iterable[Int[np.ndarray, " T"]], batch_size: int = 16
) -> TextScore:
    """Measure how well a model predicts each token from those before it.

    A text that is longer than the model's context is cut into windows of that length, one after the
    other; each token is predicted from those before it in its window.

    Args:
        model: Model in evaluation mode, on the device to use.
        texts: Token numbers of each text.
        batch_size: Number of windows in a forward pass.

    Raises:
        InputError: There is no token to predict, or a number is no token's.
    """
    device, count, total, tokens = model.pos_embed.device, _Count(), 0.0, 0
    windows = _windows(texts, model.context, count)
    while batch := list(islice(windows, batch_size)):
        longest = max(map(len, batch)) - 1
        inputs = torch.zeros(len(batch), longest, dtype=torch.long)
        targets = torch.full_like(inputs, _NOTHING)
        for number, window in enumerate(batch):
            inputs[number, : len(window) - 1] = window[:-1]
            targets[number, : len(window) - 1] = window[1:]
        logits, targets = (
            model(inputs.to(device)).float().flatten(0, 1),
            targets.to(device).flatten(),
        )
        total += float(F.cross_entropy(logits, targets, ignore_index=_NOTHING, reduction="sum"))
        tokens += int((targets != _NOTHING).sum())
    if not tokens:
        raise InputError("expected a text of two tokens or more, found none")
    return TextScore(count.texts, tokens, total / tokens)


class _Count:
    texts = 0


def _windows(
    texts: Iterable[Int[np.ndarray, " T"]], context: int, count: _Count
) -> Iterator[Tensor]:
    """Windows of a context and the token after it; the last one of a text may be shorter."""
    for text in texts:
        count.texts += 1
        for start in range(0, len(text) - 1, context):
            yield torch.from_numpy(text[start : start + context + 1].astype(np.int64))
