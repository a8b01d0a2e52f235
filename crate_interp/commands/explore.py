"""A page in the browser for looking into models with one's own images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from crate_interp.errors import InputError
from crate_interp.options import Range, check_ranges, option
from crate_interp.options.ranges import Side
from crate_interp.runs.command import Command
from crate_interp.runs.options import PLACES, ModelOptions

if TYPE_CHECKING:
    from crate_interp.explorer.explorer import Explorer
    from crate_interp.explorer.opening import Draw
    from crate_interp.explorer.pictures import Pictures

__all__ = ["Explore"]

Port = Annotated[int, Range(1, 65_535)]
Megabytes = Annotated[float, Range(0, 1000, (0,))]


@dataclass(frozen=True, kw_only=True)
class Explore(Command):
    """Look at images in the browser, live.

    The page shows what models do with an image: attention, masks, components, atoms. It needs the
    extra app, and no network.
    """

    group: ClassVar[str] = "look inside"

    model: list[str] = option(
        "models that the page offers: names or files; see `models`",
        ["photo", "photo_vit", "demo"],
        several=str,
    )
    images: list[str] = option(
        f"images that the page offers beside the built-in sets: {PLACES}",
        [],
        several=str,
        metavar="PATH",
    )
    atlas: Path | None = option("folder of an atlas, made by `atlas`, for the view of atoms", None)
    size: Side | None = option("side of the models' input (default: each model's own)", None)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    host: str = option("address to listen at; 0.0.0.0 for the whole network", "127.0.0.1")
    port: Port | None = option("port (default: the first free one from 7860)", None)
    most_megabytes: Megabytes = option("largest image that may be uploaded, 10^6 bytes", 20.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.model:
            raise InputError("model: expected one or more, found none")

    def run(self) -> int:
        """Serve the page until Ctrl-C.

        Raises:
            InputError: gradio is not installed; a model, the pictures or the atlas cannot be had,
                or the port is taken.
        """
        import crate_interp.explorer.framework  # noqa: F401  # refuses, where gradio is missing
        from crate_interp.explorer.pictures import Pictures
        from crate_interp.explorer.serve import launch

        pictures, most_bytes = Pictures(self.images), round(self.most_megabytes * 1e6)

        def tell(address: str) -> None:
            print(f"{address} (Ctrl-C ends it)", flush=True)

        def load() -> Draw:
            from crate_interp.explorer.page import draw_page

            return partial(draw_page, self.explorer(pictures), most_bytes)

        launch(pictures, load, self.host, self.port, most_bytes, tell)
        return 0

    def explorer(self, pictures: Pictures) -> Explorer:
        """Gather models, pictures and atlas; importing what they need takes seconds.

        Args:
            pictures: The pictures.

        Raises:
            InputError: A model or the atlas cannot be had.
        """
        from crate_interp.explorer.explorer import Explorer
        from crate_interp.explorer.models import Models
        from crate_interp.explorer.scene import read_shown_atlas

        options = [
            ModelOptions(model=name, size=self.size, device=self.device) for name in self.model
        ]
        atlas = None if self.atlas is None else read_shown_atlas(self.atlas)
        return Explorer(Models(options), pictures, atlas)
