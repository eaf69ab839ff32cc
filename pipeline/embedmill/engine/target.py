"""Target: provider, device and precision; and shapes of batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Bucket, Model, Packing
from embedmill.engine.availability import require
from embedmill.engine.catalogue.entry import Exact, Ladder, Precision, Provider
from embedmill.engine.devices import Device, select_device
from embedmill.engine.machine.machine import Machine


class Target(Struct, frozen=True, kw_only=True):
    """Provider, device (None: the only one), precision, and reason (`chosen`)."""

    provider: Provider
    precision: Precision
    device: Device | None
    chosen: str

    @property
    def label(self) -> str:
        """Return a name like `directml fp32 on NVIDIA RTX 4060`."""
        where = f" on {self.device.label}" if self.device is not None else ""
        return f"{self.provider.name} {self.precision}{where}"


def target_for(
    provider: Provider, wish: EngineTable, machine: Machine, list_devices: Callable[[Provider], Sequence[Device]]
) -> Target:
    """Make a provider's target. Raises DeviceError with a remedy."""
    require(provider, machine)
    device = select_device(provider, list_devices(provider), wish.device)
    return Target(provider=provider, precision=_precision(provider, wish), device=device, chosen="asked for")


def _precision(provider: Provider, wish: EngineTable) -> Precision:
    if wish.precision == "auto":
        return next(iter(provider.precisions))
    if wish.precision not in provider.precisions:
        known = ", ".join(provider.precisions)
        raise DeviceError(
            f"{provider.name} does not compute in {wish.precision}; `engine.precision` (--precision) can be {known}"
        )
    return wish.precision


def packing_for(provider: Provider, model: Model, wish: EngineTable) -> Packing:
    """Return shapes of batches for a provider and a model."""
    budget = wish.budget_tokens or provider.shapes.budget_tokens
    if isinstance(provider.shapes, Exact):
        return Packing(budget_tokens=budget)
    return Packing(budget_tokens=budget, buckets=_buckets(provider.shapes, model, budget))


def _buckets(ladder: Ladder, model: Model, budget_tokens: int) -> tuple[Bucket, ...]:
    """Cut a ladder to sequences and weights of a model."""
    sequences = [sequence for sequence in ladder.sequences if sequence < model.max_tokens]
    while sequences and sequences[-1] * 2 < model.max_tokens:
        sequences.append(sequences[-1] * 2)
    sequences.append(model.max_tokens)
    # Each session may hold weights of its own. The longest sequences stay: they take any text.
    most = max(1, ladder.weights_bytes // max(model.weights_bytes, 1))
    return tuple(
        Bucket(rows=_power_of_two(min(ladder.most_rows, budget_tokens // sequence)), sequence=sequence)
        for sequence in sequences[-most:]
    )


def _power_of_two(most: int) -> int:
    """Round down to a power of two, at least 1."""
    return 1 << max(most, 1).bit_length() - 1
