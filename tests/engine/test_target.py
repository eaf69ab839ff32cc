"""A target has a name, a device and a precision, and its shapes follow from the model and the memory."""

from __future__ import annotations

import pytest
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Packing
from embedmill.engine.catalogue import PROVIDERS, find_provider
from embedmill.engine.catalogue.entry import Exact, GraphChoice, Ladder, Provider
from embedmill.engine.devices import Device
from embedmill.engine.machine.machine import this_machine
from embedmill.engine.target import Target, packing_for, target_for
from tests.support.fake_devices import device_of
from tests.support.works import CPU, installed, ladder_of, model, provider_of, with_ort

LADDERS = [provider for provider in PROVIDERS if isinstance(provider.shapes, Ladder)]
DEFAULT = EngineTable()
LUNAR = structs.replace(with_ort(CPU, name="MoonExecutionProvider"), name="moon")


def shapes(provider: Provider, *, max_tokens: int = 512, weights_bytes: int = 1, budget: int | None = None) -> list:  # type: ignore[type-arg]
    known = model(max_tokens=max_tokens, weights_bytes=weights_bytes)
    buckets = packing_for(provider, known, EngineTable(budget_tokens=budget)).buckets
    return [(bucket.rows, bucket.sequence) for bucket in buckets]


@pytest.mark.parametrize("max_tokens", [3, 31, 32, 33, 64, 100, 256, 512, 514, 2048, 8192])
@pytest.mark.parametrize("provider", LADDERS, ids=lambda provider: provider.name)
def test_a_ladder_ends_at_the_models_longest_text(provider: Provider, max_tokens: int) -> None:
    found = shapes(provider, max_tokens=max_tokens)
    sequences = [sequence for _, sequence in found]
    assert sequences[-1] == max_tokens
    assert sequences == sorted(set(sequences))
    assert all(rows & (rows - 1) == 0 and rows >= 1 for rows, _ in found)


@pytest.mark.parametrize("max_tokens", [3, 100, 512, 8192])
@pytest.mark.parametrize("provider", LADDERS, ids=lambda provider: provider.name)
def test_a_bucket_keeps_the_budget_or_has_one_row(provider: Provider, max_tokens: int) -> None:
    assert isinstance(provider.shapes, Ladder)
    for rows, sequence in shapes(provider, max_tokens=max_tokens):
        assert rows == 1 or rows * sequence <= provider.shapes.budget_tokens
        assert rows <= provider.shapes.most_rows


def test_rows_are_the_largest_power_of_two_within_the_budget() -> None:
    provider = provider_of(shapes=ladder_of(32, 64, 100, budget_tokens=1000, most_rows=16))
    assert shapes(provider, max_tokens=200) == [(16, 32), (8, 64), (8, 100), (4, 200)]


def test_a_model_of_long_texts_doubles_the_longest_sequence() -> None:
    provider = provider_of(shapes=ladder_of(32, 64, budget_tokens=64))
    assert shapes(provider, max_tokens=300) == [(2, 32), (1, 64), (1, 128), (1, 256), (1, 300)]


@pytest.mark.parametrize(("weights", "kept"), [(1, 4), (250, 4), (251, 3), (400, 2), (600, 1), (5000, 1)])
def test_memory_drops_the_short_sequences(weights: int, kept: int) -> None:
    provider = provider_of(shapes=ladder_of(32, 64, 128, 256, weights_bytes=1000))
    found = [sequence for _, sequence in shapes(provider, max_tokens=256, weights_bytes=weights)]
    assert found == [32, 64, 128, 256][-kept:]


def test_a_model_of_unknown_size_keeps_its_ladder() -> None:
    assert len(shapes(provider_of(shapes=ladder_of(32, 64)), max_tokens=64, weights_bytes=0)) == 2


def test_a_job_may_set_the_budget_of_a_ladder() -> None:
    provider = provider_of(shapes=ladder_of(32, 64, budget_tokens=128, most_rows=64))
    assert shapes(provider, max_tokens=64) == [(4, 32), (2, 64)]
    assert shapes(provider, max_tokens=64, budget=512) == [(16, 32), (8, 64)]
    assert shapes(provider, max_tokens=64, budget=1) == [(1, 32), (1, 64)]


def test_exact_shapes_have_a_budget_and_no_buckets() -> None:
    provider = provider_of(shapes=Exact(budget_tokens=512))
    assert packing_for(provider, model(), DEFAULT) == Packing(budget_tokens=512)
    assert packing_for(provider, model(), EngineTable(budget_tokens=99)) == Packing(budget_tokens=99)


@pytest.mark.parametrize(
    ("device", "label"),
    [
        (None, "directml fp16"),
        (device_of(name="RTX 4060"), "directml fp16 on RTX 4060"),
        (device_of(name="Basic Render", emulated=True), "directml fp16 on Basic Render (emulated)"),
    ],
    ids=["none", "real", "emulated"],
)
def test_a_target_is_called_by_provider_precision_and_device(device: Device | None, label: str) -> None:
    assert Target(provider=find_provider("directml"), precision="fp16", device=device, chosen="").label == label


DEVICES = [device_of(0, name="Near side", discrete=False), device_of(1, name="Far side", discrete=True)]


class TestAim:
    PROVIDER = installed(
        provider_of(
            precisions={
                "fp32": GraphChoice(graph="fused", floor=0.99999),
                "fp16": GraphChoice(graph="fused-fp16", floor=0.999),
            }
        )
    )

    def test_the_default_is_the_first_precision_on_the_most_powerful_device(self) -> None:
        found = target_for(self.PROVIDER, DEFAULT, this_machine(), lambda _: DEVICES)
        assert (found.label, found.chosen) == ("moon fp32 on Far side", "asked for")

    def test_a_job_may_ask_for_a_device_and_a_precision(self) -> None:
        found = target_for(
            self.PROVIDER, EngineTable(device="near", precision="fp16"), this_machine(), lambda _: DEVICES
        )
        assert found.label == "moon fp16 on Near side"

    def test_a_precision_that_the_provider_lacks_lists_those_it_has(self) -> None:
        with pytest.raises(DeviceError, match=r"moon does not compute in fp16; `engine\.precision` .* can be fp32$"):
            target_for(installed(provider_of()), EngineTable(precision="fp16"), this_machine(), lambda _: DEVICES)

    def test_a_device_that_is_not_there_lists_those_that_are(self) -> None:
        with pytest.raises(DeviceError, match=r"moon has no device 'sun'.*0: Near side \(gpu\); 1: Far side \(gpu\)"):
            target_for(self.PROVIDER, EngineTable(device="sun"), this_machine(), lambda _: DEVICES)


def test_a_provider_that_is_not_here_is_refused_before_its_devices_are_listed() -> None:
    with pytest.raises(DeviceError, match="moon is not for this machine"):
        target_for(provider_of(), DEFAULT, this_machine(), lambda _: pytest.fail("asked for devices"))
