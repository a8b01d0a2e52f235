"""CLIPA and CLIP: image and text embeddings in one space, for zero-shot classification.

Reference: Scaling White-Box Transformers for Vision, arXiv 2405.20299; the training is that of
CLIPA, arXiv 2305.07017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.layers import LayerNorm
from timm.models import generate_default_cfgs
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.backbones import Backbone
from crate_interp.models.crate import LARGE
from crate_interp.models.crate_alpha import HUGE, CrateAlpha, released
from crate_interp.models.families import ALIASES, register_family

__all__ = ["CLIPA_TEXT", "CLIP_TEXT", "CrateClip", "TextStyle", "TextTower", "tokenize"]

Tokenizer = Callable[[Sequence[str], int], Int[Tensor, "T context"]]


class TextStyle(NamedTuple):
    """What the text encoders of CLIPA and CLIP differ in.

    Attributes:
        eps: Term of the norms that keeps them from dividing by zero.
        activation: Activation of the MLPs.
        is_causal: Whether a token sees those before it alone, and the text is read off the first
            token of the largest number, which is its end; otherwise off the last one.
    """

    eps: float
    activation: Callable[[], nn.Module]
    is_causal: bool


CLIPA_TEXT = TextStyle(1e-6, partial(nn.GELU, approximate="tanh"), is_causal=False)
CLIP_TEXT = TextStyle(1e-5, nn.GELU, is_causal=True)


class TextTower(nn.Module):
    """Text encoder of CLIPA or CLIP: a pre-norm transformer, read off one token.

    Args:
        vocabulary: Number of different tokens.
        context: Number of tokens of a text.
        width: Width of the tokens.
        depth: Number of blocks.
        num_heads: Number of attention heads; divides the width.
        embedding: Number of dimensions of the space that images and texts share.
        style: What differs between CLIPA's and CLIP's.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        width: int,
        depth: int,
        num_heads: int,
        embedding: int,
        style: TextStyle = CLIPA_TEXT,
    ) -> None:
        super().__init__()
        self._is_causal = style.is_causal
        if width % num_heads:
            raise InputError(f"text width {width} is not a multiple of its {num_heads} heads")
        norm_layer: Any = partial(LayerNorm, eps=style.eps)
        act_layer: Any = style.activation
        self.token_embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.pos_embed = nn.Parameter(torch.empty(context, width).normal_(std=0.01))
        self.blocks = nn.Sequential(
            *(
                Block(width, num_heads, qkv_bias=True, norm_layer=norm_layer, act_layer=act_layer)
                for _ in range(depth)
            )
        )
        self.norm = norm_layer(width)
        self.projection = nn.Linear(width, embedding, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, tokens: Int[Tensor, "T context"]) -> Float[Tensor, "T E"]:
        """Embed texts, each padded to the whole context; the embeddings are not normalised.

        Raises:
            InputError: The texts are not of the context's length, or a number is no token's.
        """
        context, vocabulary = len(self.pos_embed), self.token_embedding.num_embeddings
        if tokens.ndim != 2 or tokens.shape[1] != context:
            raise InputError(f"tokens: expected (T, {context}), found {tuple(tokens.shape)}")
        least, most = (int(end) for end in tokens.aminmax()) if tokens.numel() else (0, 0)
        if least < 0 or most >= vocabulary:
            raise InputError(
                f"tokens: expected numbers below {vocabulary}, found {least} to {most}"
            )
        x = self.token_embedding(tokens) + self.pos_embed
        read = torch.full_like(tokens[:, 0], context - 1)
        mask = None
        if self._is_causal:
            read = tokens.argmax(dim=1)
            mask = x.new_full((context, context), -torch.inf).triu(1)
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        x = self.norm(x)
        embeddings: Tensor = self.projection(x[torch.arange(len(x), device=x.device), read])
        return embeddings


class CrateClip(nn.Module):
    """A vision tower and a text tower whose embeddings can be compared.

    Args:
        visual: The vision tower, with its projection as head.
        text: The text tower.
        tokenizer: Turns texts into token numbers as `tokenize` does; `None`: that is `tokenize`.

    Attributes:
        logit_scale: Logarithm of the factor on cosines.
    """

    def __init__(
        self, visual: Backbone, text: TextTower, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.tokenizer = tokenizer
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations of the vision tower twice to keep fewer of them, or not."""
        self.visual.set_grad_checkpointing(enable)

    def forward(
        self, images: Float[Tensor, "B C H W"], tokens: Int[Tensor, "B context"]
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E"], Float[Tensor, ""]]:
        """Embed images and their texts.

        Returns:
            Embeddings of images and of texts, of unit length, float32; and the factor on cosines.
        """
        parts = (self.encode_image(images), self.encode_text(tokens))
        image, text = (F.normalize(part.float(), dim=1) for part in parts)
        return image, text, self.logit_scale.exp()

    def encode_image(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E"]:
        """Embed normalised images; the embeddings are not normalised."""
        embeddings: Tensor = self.visual(images)
        return embeddings

    def encode_text(self, tokens: Int[Tensor, "T context"]) -> Float[Tensor, "T E"]:
        """Embed texts, as `tokenize` gives them; the embeddings are not normalised."""
        embeddings: Tensor = self.text(tokens)
        return embeddings

    def zero_shot(
        self, image_embeddings: Float[Tensor, "B E"], text_embeddings: Float[Tensor, "T E"]
    ) -> Float[Tensor, "B T"]:
        """Tell which text each image goes with: softmax(exp(logit_scale) cos(image, text)).

        Args:
            image_embeddings: Embeddings of `encode_image`.
            text_embeddings: Embeddings of `encode_text`, one row per class.

        Returns:
            Probabilities of the texts, for each image.

        Raises:
            InputError: There is no text, or the embeddings are not of one space.
        """
        if not len(text_embeddings):
            raise InputError("text_embeddings: expected one text or more, found none")
        if image_embeddings.shape[1] != text_embeddings.shape[1]:
            raise InputError(
                f"embeddings of {image_embeddings.shape[1]} (images) and "
                f"{text_embeddings.shape[1]} (texts) dimensions cannot be compared"
            )
        cosines = F.normalize(image_embeddings, dim=1) @ F.normalize(text_embeddings, dim=1).t()
        return (self.logit_scale.exp() * cosines).softmax(dim=1)

    @torch.inference_mode()
    def classify(
        self, images: Float[Tensor, "B C H W"], prompts: Sequence[str]
    ) -> Float[Tensor, "B T"]:
        """Tell which prompt each image goes with.

        Args:
            images: Normalised images.
            prompts: One text per class, "a photo of a dog" for instance.

        Returns:
            Probabilities of the prompts, for each image.

        Raises:
            InputError: No prompt, or no tokenizer to be had.
        """
        tokens = (self.tokenizer or tokenize)(prompts, len(self.text.pos_embed)).to(images.device)
        return self.zero_shot(self.encode_image(images), self.encode_text(tokens))


def tokenize(
    texts: Sequence[str], context: int = 32, model: str = "ViT-L-14-CLIPA"
) -> Int[Tensor, "T context"]:
    """Turn texts into token numbers, with CLIPA's tokenizer or that of another model.

    Args:
        texts: The texts.
        context: Number of tokens of a text; longer ones are cut, shorter ones padded.
        model: Model that the tokenizer is of, by open_clip's name.

    Returns:
        Token numbers.

    Raises:
        InputError: No text; open_clip is not installed; or the tokenizer's vocabulary is not on
            this machine and cannot be downloaded.
    """
    if isinstance(texts, str) or not texts:
        raise InputError(f"texts: expected a list of one text or more, found {texts!r}")
    try:
        import open_clip
    except ImportError as error:
        raise InputError(
            'the tokenizer needs open_clip: pip install "crate-interp[clip]"'
        ) from error
    try:
        tokenizer = open_clip.get_tokenizer(model, context_length=context)
    except ImportError as error:
        raise InputError(
            f'the tokenizer needs another package ({error}): pip install "crate-interp[clip]"'
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            "the tokenizer's vocabulary, bert-base-uncased of huggingface.co, is not on this "
            "machine and could not be downloaded; run once with a network, or put it into the "
            f"Hugging Face cache ({str(error).splitlines()[0]})"
        ) from error
    tokens: Tensor = tokenizer(list(texts))
    return tokens


_cfg = partial(released, num_classes=1024, crop_pct=1.0)  # dimensions shared with texts
default_cfgs = generate_default_cfgs(
    {
        "crate_alpha_clipa_large_patch14_224.clipa": _cfg("torch/crate_alpha_CLIPA_L14.pth"),
        "crate_alpha_clipa_huge_patch14_224.clipa": _cfg("torch/crate_alpha_CLIPA_H14.pth"),
    }
)
_TOWER = {"patch_size": 14, "projection_head": True}
_VISION_TOWERS = {
    "crate_alpha_clipa_large_patch14_224": {**LARGE, **_TOWER},
    "crate_alpha_clipa_huge_patch14_224": {**HUGE, **_TOWER},
}
register_family(__name__, CrateAlpha, _VISION_TOWERS)
ALIASES["crate_alpha_CLIPA_L14"] = "crate_alpha_clipa_large_patch14_224.clipa"
ALIASES["crate_alpha_CLIPA_H14"] = "crate_alpha_clipa_huge_patch14_224.clipa"
