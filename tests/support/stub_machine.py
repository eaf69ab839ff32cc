"""A machine whose providers are measured without being there."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.records import Model, Tokens
from embedmill.engine.catalogue import find_provider
from embedmill.engine.catalogue.entry import GraphChoice, Provider
from embedmill.tune.figures import Figures
from embedmill.tune.provider import Candidate
from embedmill.tune.trial import Measurement
from tests.support.fake_devices import device_of
from tests.support.works import installed


class Machine:
    """A machine where several providers are installed, and what their trials find, round by round."""

    def __init__(self) -> None:
        self.rates: dict[tuple[str, str], list[float | str]] = {("cpu", "fp32"): [50.0]}
        self.figures: dict[str, Any] = {}
        self.emulated = False
        self.tried: list[tuple[EngineTable, int]] = []
        self.options: list[dict[str, Any]] = []

    @property
    def providers(self) -> list[Provider]:
        """Entries of the providers, with the precisions that have rates, in the order of tests."""
        precisions: dict[str, list[str]] = {}
        for name, precision in sorted(self.rates, reverse=True):
            precisions.setdefault(name, []).append(precision)
        graph = GraphChoice(graph="fused", floor=0.99999)
        return [
            structs.replace(installed(find_provider(name)), precisions=dict.fromkeys(found, graph))
            for name, found in precisions.items()
        ]

    def candidates(self, *_: Any) -> list[Candidate]:
        return [
            Candidate(provider=find_provider(name), precision=precision, version="1.0")  # type: ignore[arg-type]
            for name, precision in sorted(self.rates, reverse=True)
        ]

    def try_provider(self, model: Model, engine: EngineTable, tokens: Tokens, **options: Any) -> Measurement:
        key = (engine.provider, engine.precision)
        number = sum(one.provider == key[0] and one.precision == key[1] for one, _ in self.tried)
        self.tried.append((engine, len(tokens.truncated)))
        self.options.append(options)
        rate = self.rates[key][number % len(self.rates[key])]
        if isinstance(rate, str):
            return Measurement(provider=key[0], precision=key[1], words=rate)
        figures = Figures(
            texts=len(tokens.truncated),
            tokens=int(tokens.lengths.sum()),
            padded_tokens=int(tokens.lengths.sum()) * 2,
            flops=len(tokens.truncated) * 1000,
            cosine=None if key[0] == "cpu" else 0.99995,
            memory_bytes=1 << 30,
            memory_words="",
            peak_flops_per_s=200_000.0,
            peak_words="",
        )
        figures = structs.replace(figures, **(self.figures if key[0] != "cpu" else {}))
        return Measurement(
            provider=key[0],
            precision=key[1],
            documents_per_s=rate,
            device=device_of(emulated=self.emulated and key[0] != "cpu"),
            figures=figures,
        )
