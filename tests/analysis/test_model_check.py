"""The check of models, on one name per kind of block.

`crate-interp models --check` does it on all vision transformers of timm, which takes half an hour.
"""

import pytest
import timm
import torch

from crate_interp import InputError
from crate_interp.analysis import STEPS, ModelCheck, check_model
from crate_interp.commands.models import Models
from crate_interp.models.anatomy import ATTENTIONS

# timm 1.0.31 resamples tables of relative positions in a way that PyTorch warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.searchsorted:UserWarning"),
]
NAMES = [
    *("crate_demo", "crate_alpha_demo", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"),
    *("vit_medium_patch16_gap_240", "vit_small_patch16_18x2_224", "eva02_base_patch16_clip_224"),
    *("vit_pwee_patch16_reg1_gap_256", "vit_dwee_patch16_reg1_gap_256", "vit_tiny_r_s16_p8_224"),
    *("vit_dpwee_patch16_reg1_gap_256", "vit_small_patch14_reg4_dinov2", "vitamin_small_224"),
    *("vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384"),
    *("beit_base_patch16_224", "test_vit_relpos", "samvit_base_patch16_224"),
    *("naflexvit_base_patch16_gap", "naflexvit_base_patch16_radio_v3"),
    *("qwen3_vit_88m_enc", "gemma4_vit_167m"),
]
LACKING = {
    "resnet18": "no blocks that all see one grid of patches",
    "cait_xxs24_224": "attention of a kind that is not known: TalkingHeadAttn",
    "tnt_s_patch16_224": "no patch embedding of one patch size",
}


@pytest.mark.parametrize("name", NAMES)
def test_everything_works_on_each_kind_of_block(name):
    if name not in timm.list_models(name):
        pytest.skip(f"this release of timm has no {name}")
    state = torch.get_rng_state()
    checked = check_model(name)
    assert checked.results == dict.fromkeys(STEPS, "ok")
    assert checked.passes
    assert not checked.missing
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", LACKING)
def test_what_a_model_lacks_is_one_line(name):
    checked = check_model(name)
    assert checked == ModelCheck(checked.kind, LACKING[name])
    assert not checked.passes


def test_the_table_has_a_row_for_each_model(capsys):
    assert Models("resnet1[08]", check=True).run() == 0
    heading, *rows, summary = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["MODEL", *(step.upper() for step in STEPS)]
    assert [row.split()[:6] for row in rows] == [["resnet18", *"-----"]]
    assert summary == "1 models: 0 pass, 1 lack something, 0 fail"


def test_a_step_that_fails_is_told(capsys, monkeypatch):
    monkeypatch.setitem(STEPS, "pca", lambda patched: 1 / 0)
    assert Models("vit_demo", check=True).run() == 1
    _, row, summary = capsys.readouterr().out.splitlines()
    assert row.split()[:6] == ["vit_demo", "ok", "ok", "ok", "fails", "ok"]
    assert row.endswith("pca: ZeroDivisionError: division by zero")
    assert summary == "1 models: 0 pass, 0 lack something, 1 fail"


def test_unknown_attention_is_named(monkeypatch):
    monkeypatch.delitem(ATTENTIONS, timm.layers.Attention)
    assert check_model("vit_demo").missing == "attention of a kind that is not known: Attention"


@pytest.mark.parametrize("name", ["", "vit_no_such"])
def test_a_name_of_no_model_is_refused(name):
    with pytest.raises(InputError, match="unknown model"):
        check_model(name)
    with pytest.raises(InputError, match="no model matches"):
        Models(name, check=True).run()


def test_text_models_are_not_checked():
    with pytest.raises(InputError, match=r"crate_text_\w+ is a text model: expected a pattern of"):
        Models("crate_text_*", check=True).run()
