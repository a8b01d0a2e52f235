from types import SimpleNamespace

import pytest
import torch

from crate_interp import Observer
from crate_interp.errors import InputError
from crate_interp.models.memory import usable_memory
from crate_interp.runs import inference
from crate_interp.runs.inference import (
    batch_size_of,
    check_tokens,
    peak_memory_mb,
    precision_of,
    workers_of,
)
from crate_interp.weights import create_backbone, resolve_name

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def model():
    return create_backbone(resolve_name("crate_alpha_demo"))


def test_an_automatic_batch_has_4096_tokens(model):
    assert batch_size_of("auto", Observer(model, size=48)) == 4096 // (12 * 12 + 1)
    assert batch_size_of("auto", Observer(model, size=48, stride=2)) == 4096 // (23 * 23 + 1)
    assert batch_size_of("auto", Observer(model, size=480)) == 1
    assert batch_size_of(7, Observer(model, size=480)) == 7


# 28 pictures of 145 tokens, 128 dimensions and 24 numbers of 4 bytes take 49.9 MB.
@pytest.mark.parametrize(("gigabytes", "expected"), [(100, 65536 // 145), (0.2, 28), (0.001, 1)])
def test_an_automatic_batch_fits_into_a_quarter_of_a_gpu(model, monkeypatch, gigabytes, expected):
    memory = SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    monkeypatch.setattr(Observer, "device", CUDA)
    assert batch_size_of("auto", Observer(model, size=48)) == expected


@pytest.mark.parametrize(
    ("asked", "device", "capability", "fast", "expected"),
    [
        ("auto", CPU, None, False, "float32"),
        ("auto", CPU, None, True, "bfloat16_attention"),
        ("auto", CUDA, (8, 0), True, "float16"),
        ("auto", CUDA, (7, 0), True, "float16"),
        ("auto", CUDA, (6, 1), True, "float32"),
        ("bfloat16", CPU, None, False, "bfloat16"),
    ],
)
def test_automatic_precision_is_the_fastest_that_keeps_masks(
    monkeypatch, asked, device, capability, fast, expected
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(inference, "has_fast_bfloat16", lambda: fast)
    assert precision_of(asked, device) == expected


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (6, 3), (64, 8)])
def test_workers_are_half_of_the_cores_and_at_most_8(monkeypatch, cores, expected):
    monkeypatch.setattr(inference.sys, "platform", "plan9")
    monkeypatch.setattr(inference.os, "cpu_count", lambda: cores)
    assert workers_of(None) == expected
    assert workers_of(0) == 0


def test_peak_memory_grows_with_what_is_used():
    before = peak_memory_mb(CPU)["process"]
    block = torch.ones(40_000_000)  # 160 MB
    after = peak_memory_mb(CPU)
    assert after["process"] >= max(before, 160)
    assert after["cuda"] is None
    assert block.numel()


@pytest.mark.parametrize(("size", "memory", "warned"), [(512, 1, False), (516, 10**9, True)])
def test_more_patches_than_usual_are_warned_of(model, monkeypatch, caplog, size, memory, warned):
    monkeypatch.setattr(inference, "usable_memory", lambda _: memory)
    check_tokens(Observer(model, size=size))
    assert ("size 516: 16641 patches an image, whose pairs take 0.3 GB" in caplog.text) == warned
    assert len(caplog.records) == warned


def test_more_patches_than_the_memory_holds_are_refused(model, monkeypatch):
    monkeypatch.setattr(inference, "usable_memory", lambda _: 24 * 10**9)
    expected = r"size 2000: 250000 patches .* 62.5 GB in a cut; expected at most .*, 24.0 GB"
    with pytest.raises(InputError, match=expected):
        check_tokens(Observer(model, size=2000))


def test_usable_memory_is_what_a_limit_leaves(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**6, 10**6))
    assert usable_memory() == 10**6
    monkeypatch.undo()
    assert usable_memory(CPU) > 10**8


def test_a_model_that_the_memory_does_not_hold_is_refused(monkeypatch):
    monkeypatch.setattr("crate_interp.weights.create.usable_memory", lambda: 10**6)
    with pytest.raises(InputError, match=r"vit_demo with .*: expected parameters that fit"):
        create_backbone(resolve_name("vit_demo"), embed_dim=256)
