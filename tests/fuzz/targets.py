"""The table of targets; a new one is one entry here, its inputs in `inputs_*.py`."""

from tests.fuzz import inputs_coco as coco
from tests.fuzz import inputs_pictures as pictures
from tests.fuzz.damage import damage
from tests.fuzz.damage_pictures import PICTURES
from tests.fuzz.damage_text import JSON
from tests.fuzz.frame import Target

__all__ = ["TARGETS"]

TARGETS = (
    Target("images/read", pictures.make, damage(["images/*"], PICTURES), pictures.read, 40),
    Target("images/maskcut", pictures.make, damage(["images/*"], PICTURES), pictures.maskcut, 6),
    Target("coco/annotations", coco.make, damage(["truth.json"], JSON), coco.score, 30),
    Target("coco/results", coco.make, damage(["results.json"], JSON), coco.score, 30),
    Target("coco/evaluate", coco.make, damage(["*.json"], JSON), coco.evaluate, 8),
    Target(
        "coco/split", coco.make_split, damage(["annotations/*.json"], JSON), coco.open_split, 20
    ),
    Target("coco/images", coco.make, damage(["truth.json"], JSON), coco.maskcut, 6),
)
