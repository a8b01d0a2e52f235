"""Loss and perplexity of a text model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict

from crate_interp import data, evaluation, weights
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.runs.command import Command
from crate_interp.runs.progress import progress_bar
from crate_interp.runs.text_models import TextModelOptions, load_text_model_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from jaxtyping import Int

    from crate_interp.data import Vocabulary
    from crate_interp.evaluation import TextScore
    from crate_interp.models.text import TextTransformer
    from crate_interp.runs.finished_run import Comparable, FinishedRun

__all__ = ["EvaluateText"]

_HEADINGS = ("TEXT", "TEXTS", "TOKENS", "LOSS", "PERPLEXITY")


class _Row(TypedDict):
    texts: int
    tokens: int
    loss: float
    perplexity: float


class _Results(TypedDict):
    texts: dict[str, _Row]


@dataclass(frozen=True, kw_only=True)
class EvaluateText(TextModelOptions, Command):
    """Measure loss and perplexity of a text model.

    A `.jsonl` file has a text per line, under the key `text`, as LAMBADA; a `.parquet` or `.arrow`
    file of Hugging Face a text per row, in the column `text`; a `.bin` file token numbers of two
    bytes, as nanoGPT prepares OpenWebText; any other file is one text, as those of WikiText and
    PTB. A folder counts as one row, of all text files in it.
    """

    group: ClassVar[str] = "score"

    texts: list[str] = option(
        "text files, folders of them, hf:USER/NAME[/FOLDER][:SPLIT] of the hub, or `shakespeare`",
        positional=True,
        several=str,
    )
    join_rows: bool = option(
        "take lines of .jsonl files and rows of tables as lines of one text, as the hub has "
        "WikiText and PTB",
        False,
    )
    output: Path | None = option("JSON file of the result", None, presentation=True)

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give the loss of each text."""
        from crate_interp.runs.finished_run import Comparable

        rows = run.results(_Results)["texts"]
        return Comparable(
            {f"{name} loss": row["loss"] for name, row in rows.items()}, percent=False
        )

    def run(self) -> int:
        """Print a row for each text file or folder, and write them as JSON if asked.

        Raises:
            InputError: The model cannot be had, its vocabulary is not known, or a text cannot be
                read or has no token to predict.
        """
        from crate_interp.runs.number_files import write_json
        from crate_interp.runs.provenance import settings_of, versions

        files = {name: data.text_files(name) for name in self.texts}
        model, vocabulary = load_text_model_of(self)
        if self.output is not None:
            self.output.parent.mkdir(parents=True, exist_ok=True)  # or fail before the work
        rows: dict[str, _Row] = {}
        for name in files:
            score = self._measure(name, files[name], model, vocabulary)
            rows[name] = _Row(
                texts=score.texts, tokens=score.tokens, loss=score.loss, perplexity=score.perplexity
            )
        _print_table(rows)
        if self.output is not None:
            result = {
                "command": self.command_name(),
                "model": self.model,
                "parameters_sha256": weights.parameters_checksum(model),
                "texts": rows,
                "settings": settings_of(self),
                "versions": versions(),
            }
            write_json(self.output, result)
            print(self.output)
        return 0

    def _measure(
        self, name: str, files: list[Path], model: TextTransformer, vocabulary: Vocabulary
    ) -> TextScore:
        with progress_bar(desc=name, unit="file", total=len(files)) as progress:

            def tokens() -> Iterator[Int[np.ndarray, " T"]]:
                for path in files:
                    yield from data.read_tokens(path, vocabulary, self.join_rows)
                    progress.update()

            try:
                return evaluation.score_texts(model, tokens(), self.batch_size)
            except InputError as error:
                raise InputError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None


def _print_table(rows: dict[str, _Row]) -> None:
    cells = [_HEADINGS]
    for name, row in rows.items():
        numbers = (f"{row['loss']:.4f}", f"{row['perplexity']:.4g}")
        cells.append((name, str(row["texts"]), str(row["tokens"]), *numbers))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *others in cells:
        aligned = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *aligned]))
