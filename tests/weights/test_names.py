"""Every alias means a registered architecture; unknown names offer the nearest."""

import pytest
import timm
from timm.models import get_pretrained_cfg

from crate_interp.errors import InputError
from crate_interp.weights import ModelName, resolve_name
from crate_interp.weights.names import ALIASES, nearest_names, our_architectures


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_is_registered_with_its_weights(alias):
    name = resolve_name(alias)
    assert timm.is_model(name.architecture)
    assert str(name) == ALIASES[alias]
    if name.tag:
        assert get_pretrained_cfg(str(name)).tag == name.tag


def test_no_two_aliases_mean_the_same():
    assert len(set(ALIASES.values())) == len(ALIASES)
    assert len({alias.lower() for alias in ALIASES}) == len(ALIASES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("crate_alpha_L8", ("crate_alpha_large_patch8_224", "in1k")),
        ("crate_alpha_L8.in21k", ("crate_alpha_large_patch8_224", "in21k")),
        ("crate_alpha_B8", ("crate_alpha_base_patch8_224", "in1k")),
        ("crate_alpha_B16.in1k_jax", ("crate_alpha_base_patch16_224", "in1k_jax")),
        ("crate_alpha_L32", ("crate_alpha_large_patch32_224", "in21k")),
        ("crate_alpha_large_patch8_224", ("crate_alpha_large_patch8_224", "in1k")),
        ("crate_alpha_large_patch8_224.in21k", ("crate_alpha_large_patch8_224", "in21k")),
        ("CRATE_ALPHA_l8.IN21K", ("crate_alpha_large_patch8_224", "in21k")),
        (" vit_b16 ", ("vit_base_patch16_224", "augreg2_in21k_ft_in1k")),
        ("dino_vits8", ("vit_small_patch8_224", "dino")),
        ("vit_small_patch8_224", ("vit_small_patch8_224", "dino")),
        ("vit_S8", ("vit_small_patch8_224", None)),
        ("vit_S8.dino", ("vit_small_patch8_224", "dino")),
        ("crate_alpha_tiny_patch16_224", ("crate_alpha_tiny_patch16_224", None)),
        ("demo", ("crate_alpha_demo", None)),
        ("resnet50.a1_in1k", ("resnet50", "a1_in1k")),
    ],
)
def test_resolve_name_finds_architecture_and_tag(name, expected):
    assert resolve_name(name) == ModelName(*expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crate_alpa_L8", "nearest names: .*crate_alpha_L8"),
        ("dino_vits9", "nearest names: .*dino_vits8"),
        ("vit_smal_patch8_224", "nearest names: .*vit_small_patch8_224"),
        ("vit_base_patch16_224_in21k", "nearest names: .*vit_base_patch16_224"),  # deprecated
        ("", "unknown model ''; nearest names: none"),
        (".in21k", "unknown model"),
        ("crate_alpha*", "unknown model"),
        ("crate_alpha_L8.in22k", "no weights 'in22k'; it has: .*in1k, in21k"),
        ("crate_alpha_tiny_patch16_224.in1k", "no weights 'in1k': none are published"),
    ],
)
def test_resolve_name_offers_the_nearest_for_an_unknown_name(name, message):
    with pytest.raises(InputError, match=message):
        resolve_name(name)


def test_nearest_names_spell_as_the_table_does_and_ignore_the_tag():
    assert nearest_names("CRATE_alpha_b9.in21k", 1) == ["crate_alpha_B8"]
    assert nearest_names("zzzzzz") == []


def test_our_architectures_are_those_of_this_package():
    names = our_architectures()
    assert "crate_alpha_large_patch8_224" in names
    assert [name for name in names if not name.startswith("crate_")] == ["vit_demo", "vit_photo"]
