"""Classes as texts: what turns CRATE-alpha-CLIPA into a classifier without training one.

Shapes: T classes, E dimensions of the space that images and texts share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.clipa import CrateClip, tokenize

__all__ = ["embed_classes"]

_TEXTS = 256  # of a forward pass


@torch.inference_mode()
def embed_classes(
    model: CrateClip, classes: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "T E"]:
    """Embed classes by their prompts: the mean of the templates' unit embeddings, of unit length.

    Args:
        model: Model on the device to use.
        classes: Names of the classes, in the order of the labels.
        templates: Texts in which `{}` stands for the name, "a photo of a {}." for instance.

    Returns:
        Embeddings for `CrateClip.zero_shot`, on the model's device.

    Raises:
        InputError: No class, no template, a template without `{}`, or no tokenizer to be had.

    Reference: Radford et al., arXiv 2103.00020, section 3.1.4.
    """
    if isinstance(classes, str) or not classes:
        raise InputError(f"classes: expected a list of one name or more, found {classes!r}")
    if isinstance(templates, str) or not templates:
        raise InputError(f"templates: expected a list of one text or more, found {templates!r}")
    for template in templates:
        if "{}" not in template:
            raise InputError(f"template {template!r}: expected {{}} where the class name goes")
    context, device = len(model.text.pos_embed), model.logit_scale.device
    total = torch.zeros((), device=device)
    for template in templates:
        prompts = [template.replace("{}", name) for name in classes]
        tokens = (model.tokenizer or tokenize)(prompts, context).to(device)
        embeddings = torch.cat([model.encode_text(part) for part in tokens.split(_TEXTS)])
        total = total + F.normalize(embeddings.float(), dim=1)
    return F.normalize(total, dim=1)
