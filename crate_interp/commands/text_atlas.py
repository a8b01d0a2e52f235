"""The atlas of a text model's block: `crate-interp atlas --text`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from crate_interp import analysis, data, hooks, visualization, weights
from crate_interp.errors import InputError
from crate_interp.options import Range, option
from crate_interp.options.ranges import AtLeastOne, Index
from crate_interp.runs.command import Command
from crate_interp.runs.progress import progress_bar
from crate_interp.runs.text_models import TextModelOptions, load_text_model_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Int

    from crate_interp.analysis import TokenAtlas
    from crate_interp.data import Vocabulary
    from crate_interp.models.text import TextTransformer

__all__ = ["TextAtlas"]

FORMAT = "tokens 1"  # of atlas.npz, whose format of images is a number

Strongest = Annotated[int, Range(1, 1000)]
Around = Annotated[int, Range(0, 500)]


@dataclass(frozen=True, kw_only=True)
class TextAtlas(TextModelOptions, Command):
    """Catalogue the atoms of a text model's block, with the contexts they fire on most.

    Texts are joined and cut into windows of the model's context; what is left over at the end is
    not read.
    """

    text: list[str] = option(
        "text files, folders of them, hf:USER/NAME:SPLIT of the hub, or `shakespeare`", several=str
    )
    output: Path = option("folder of the atlas: index.html, atlas.npz", presentation=True)
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    strongest: Strongest = option("tokens to keep of each atom, each of another window", 10)
    around: Around = option("tokens to show before each of them, and after it", 24)
    limit: AtLeastOne | None = option("only so many windows, from the start", None)

    @classmethod
    def command_name(cls) -> str:
        """Name for the user, which is that of the atlas of images."""
        return "atlas"

    def run(self) -> int:
        """Write the folder of the atlas, and say how often atoms fire.

        Raises:
            InputError: The model or a text cannot be had, the block has no atoms, or the folder
                holds something else than an atlas.
        """
        from crate_interp.runs import atlas_files

        atlas_files.check_atlas_folder(self.output)
        files = [file for name in self.text for file in data.text_files(name)]
        model, vocabulary = load_text_model_of(self)
        hooks.atom_site(model, self.block)  # or fail before the texts are read
        windows = self._windows(files, model, vocabulary)
        with progress_bar(desc="atlas", unit="window", total=len(windows)) as progress:
            atlas = analysis.build_token_atlas(
                *(model, windows, self.block, self.strongest, self.around, self.batch_size),
                progress.update,
            )
        title, about = self._title(model), self._about(windows)
        with atlas_files.new_atlas(self.output) as folder:
            self._write_numbers(folder / atlas_files.INDEX, atlas, model)
            page = _page_of(atlas, vocabulary, title, about)
            (folder / "index.html").write_text(page, encoding="utf-8")
        counts = atlas.atlas
        dead = int((counts.fired_patches == 0).sum())
        often = 100 * float(np.median(counts.patch_frequency))
        print(
            f"{counts.num_images} windows of {windows.shape[1]} tokens, {counts.num_atoms} atoms, "
            f"of which {dead} never fire; an atom fires on {often:.2g} % of the tokens (median)\n"
            f"open {self.output / 'index.html'} to see the atoms"
        )
        return 0

    def _windows(
        self, files: Sequence[Path], model: TextTransformer, vocabulary: Vocabulary
    ) -> Int[np.ndarray, "W T"]:
        """Tokens of the texts in windows; a text that is shorter than the context is one."""
        parts: list[Int[np.ndarray, " T"]] = []
        most = None if self.limit is None else self.limit * model.context
        for file in files:
            parts.append(data.join_tokens(file, vocabulary))
            if most is not None and sum(map(len, parts)) >= most:
                break
        tokens = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not len(tokens):
            raise InputError(f"{', '.join(self.text)}: expected a token or more, found none")
        length = min(model.context, len(tokens))
        return tokens[:most][: len(tokens[:most]) // length * length].reshape(-1, length)

    def _title(self, model: TextTransformer) -> str:
        site = hooks.atom_site(model, self.block)
        kind = "neurons" if site == "neurons" else "sparse-code atoms"
        block = self.block % len(model.blocks)
        name = f"{self.model} ({self.weights})" if self.weights else self.model
        return f"{name}: {kind} of block {block}, on {', '.join(self.text)}"

    def _about(self, windows: Int[np.ndarray, "W T"]) -> str:
        return (
            f"{len(windows)} windows of {windows.shape[1]} tokens. An atom fires on a token where "
            "its value is positive; its strongest tokens are of different windows and stand in the "
            "middle of their lines; the more an atom fires on a token, the darker it is. "
            "Selectivity is (m - o) / (m + o), of the mean value m on the token named and the mean "
            "o over the other tokens (Morcos et al. 2018)."
        )

    def _write_numbers(self, path: Path, atlas: TokenAtlas, model: TextTransformer) -> None:
        from crate_interp.runs.number_files import write_arrays
        from crate_interp.runs.provenance import settings_of, versions

        counts = atlas.atlas
        arrays: dict[str, Any] = {one.name: getattr(counts, one.name) for one in fields(counts)}
        arrays |= {"contexts": atlas.contexts, "context_values": atlas.values}
        about: Mapping[str, Any] = {
            "format": FORMAT,
            "block": self.block % len(model.blocks),
            "site": hooks.atom_site(model, self.block).value,
            "parameters_sha256": weights.parameters_checksum(model),
            "settings": settings_of(self),
            "versions": versions(),
        }
        write_arrays(path, arrays, about)


def _page_of(atlas: TokenAtlas, vocabulary: Vocabulary, title: str, about: str) -> str:
    counts = atlas.atlas
    cards = [
        visualization.TokenCard(
            atom=atom,
            frequency=float(counts.patch_frequency[atom]),
            windows=int(counts.fired_images[atom]),
            mean=float(counts.mean_value[atom]),
            selectivity=float(counts.selectivity[atom]),
            best_class=int(counts.best_class[atom]),
            contexts=_contexts_of(atlas, atom, vocabulary),
        )
        for atom in range(counts.num_atoms)
    ]
    known = len(counts.class_means)
    classes = [vocabulary.decode([token]) for token in range(min(known, vocabulary.size))]
    classes += [f"token {token}" for token in range(len(classes), known)]
    return visualization.token_atlas_page(title, about, cards, classes, counts.num_images)


def _contexts_of(
    atlas: TokenAtlas, atom: int, vocabulary: Vocabulary
) -> list[visualization.TokenContext]:
    counts, contexts = atlas.atlas, []
    for rank in np.flatnonzero(counts.top_images[atom] >= 0):
        tokens = atlas.contexts[atom, rank]
        inside = np.flatnonzero(tokens >= 0)
        place = f"window {counts.top_images[atom, rank]}, token {counts.top_patches[atom, rank]}"
        contexts.append(
            visualization.TokenContext(
                place=place,
                pieces=data.split_text(vocabulary, tokens[inside].tolist()),
                values=atlas.values[atom, rank, inside].tolist(),
                middle=len(tokens) // 2 - int(inside[0]),
            )
        )
    return contexts
