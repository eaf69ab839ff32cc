"""Report of tunings: words, plots and a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import TypeAlias

from markupsafe import Markup

from embedmill.base.config import MIB
from embedmill.base.records import Bucket, Packing
from embedmill.base.results import TrialFacts, Tuning
from embedmill.report.page import page, table
from embedmill.report.plot import Curve, Plot, svg
from embedmill.report.units import duration, short, size

_CEILING_SHOWN = 8
_WITHOUT_GAIN = {
    "default": "the default is the best found",
    "default failed": "not compared with the default, which cannot run below the memory ceiling or failed",
    "not compared": "no time to compare the best found with the default: keeping the default"
    " (`embedmill tune --time` gives more)",
}
Figure: TypeAlias = Callable[[TrialFacts], float]


def tuning_section(tuning: Tuning | None) -> Markup:
    """Return the section of a report; empty without a tuning."""
    if tuning is None:
        return Markup()
    plots = Markup().join(Markup("<h3>{}</h3>{}").format(plot.title, svg(plot)) for plot in tuning_plots(tuning))
    return Markup("<h2>Tuning</h2><p>{}.</p>{}{}").format(pick_words(tuning), plots, _table(tuning))


def tuning_page(tuning: Tuning) -> str:
    """Return the section as a separate page."""
    return page("embedmill tune", [tuning_section(tuning)])


def tuning_summary(tuning: Tuning) -> str:
    """Return a tuning for a terminal."""
    # A record may be damaged, and the others are shown all the same.
    where = dict.fromkeys(("model", "provider", "lengths"), "unknown") | tuning.holds_for
    lines = [
        f"{where['model'].split(' ')[0]}, {where['provider']} {tuning.precision}: {pick_words(tuning)}",
        f"  for texts of {where['lengths'].replace('_', ' ').replace('-', ', ')} tokens; made {tuning.made}",
    ]
    if tuning.rates:
        lines.append(f"  runs since then: {', '.join(f'{short(rate)} tokens/s' for rate in tuning.rates)}")
    return "\n".join(lines)


def tunings_summary(tunings: list[Tuning]) -> str:
    """Return all kept tunings for a terminal."""
    if not tunings:
        return "nothing is kept yet: run `embedmill tune` with a config or --input"
    return "\n".join(tuning_summary(tuning) for tuning in tunings)


def pick_words(tuning: Tuning) -> str:
    """Return settings, rate, memory, gain and cost of a tuning."""
    memory = "" if tuning.peak_bytes is None else f" with {size(tuning.peak_bytes)}"
    most = "" if tuning.ceiling_bytes is None or not memory else f" of {size(tuning.ceiling_bytes)}"
    ended = ", until the time was up" if tuning.ended == "time" else ""
    rate = f": {short(tuning.tokens_per_s)} tokens/s" if tuning.tokens_per_s else ""
    return (
        f"{_mode_words(tuning)}, {_packing_words(tuning.packing)}{rate}{memory}{most}; {gain_words(tuning)};"
        f" {len(tuning.trials)} trials in {duration(tuning.seconds)}{ended}"
    )


def gain_words(tuning: Tuning) -> str:
    """Return gain and spread, or why the default is kept."""
    if tuning.gain is None or not tuning.gain_pairs:
        return _WITHOUT_GAIN.get(tuning.verdict, "not compared with the default")
    low, high = min(tuning.gain_pairs), max(tuning.gain_pairs)
    pairs = f"{len(tuning.gain_pairs)} pairs of runs: {low:.2f} to {high:.2f}"
    if tuning.verdict == "faster":
        return f"{tuning.gain:.2f} times the default ({pairs})"
    return f"no gain over the default: keeping the default (the best found ran at {tuning.gain:.2f} times, {pairs})"


def trial_words(number: int, trial: TrialFacts) -> str:
    """Return `trial 3: fp32, 512 tokens: 8.4k tokens/s, 96.0 MiB`."""
    batch = f"{_bucket_words(trial.bucket) if trial.bucket else trial.budget_tokens} tokens"
    if trial.failure is not None:
        return f"trial {number}: {_mode_words(trial)}, {batch}: {trial.failure}"
    memory = "" if trial.peak_bytes is None else f", {size(trial.peak_bytes)}"
    return f"trial {number}: {_mode_words(trial)}, {batch}: {short(_rate(trial))} tokens/s{memory}"


def tuning_plots(tuning: Tuning) -> list[Plot]:
    """Return plots of rate, memory and the order of trials."""
    good = [trial for trial in tuning.trials if trial.failure is None]
    measured = [trial for trial in good if trial.peak_bytes is not None]
    return [
        _size_plot(tuning, good, _rate, title="Tokens per second by size of a batch", y_label="useful tokens/s"),
        _size_plot(tuning, measured, _peak, title="Memory by size of a batch", y_label="peak, MiB"),
        _order_plot(tuning),
    ]


def _size_plot(tuning: Tuning, trials: list[TrialFacts], figure: Figure, *, title: str, y_label: str) -> Plot:
    level = None
    # A ceiling far above all trials would press them into a line.
    if figure is _peak and tuning.ceiling_bytes is not None and trials:
        ceiling = tuning.ceiling_bytes / MIB
        level = (ceiling, "ceiling") if ceiling < _CEILING_SHOWN * max(map(_peak, trials)) else None
    return Plot(
        title=title,
        x_label="padded tokens per batch",
        y_label=y_label,
        curves=_by_size(trials, figure),
        log_x=True,
        level=level,
        marked=_medians([trial for trial in trials if _is_picked(tuning, trial)], figure),
    )


def _order_plot(tuning: Tuning) -> Plot:
    numbered = {id(trial): float(number) for number, trial in enumerate(tuning.trials, 1)}
    good = [trial for trial in tuning.trials if trial.failure is None]
    curves = tuple(
        Curve(name=name, points=tuple((numbered[id(trial)], _rate(trial)) for trial in trials), joined=False)
        for name, trials in _named(good).items()
    )
    failed = tuple(numbered[id(trial)] for trial in tuning.trials if trial.failure is not None)
    return Plot(
        title="The trials in their order", x_label="trial", y_label="useful tokens/s", curves=curves, failed=failed
    )


def _by_size(trials: list[TrialFacts], figure: Figure) -> tuple[Curve, ...]:
    """Return a line through medians per mode and sequence."""
    named = _named(trials).items()
    return tuple(Curve(name=name, points=_medians(members, figure)) for name, members in named)


def _medians(trials: list[TrialFacts], figure: Figure) -> tuple[tuple[float, float], ...]:
    at: dict[int, list[float]] = defaultdict(list)
    for trial in trials:
        at[_tokens(trial)].append(figure(trial))
    return tuple((float(x), median(at[x])) for x in sorted(at))


def _is_picked(tuning: Tuning, trial: TrialFacts) -> bool:
    same = (trial.precision, trial.streams, trial.threads, trial.in_flight)
    if same != (tuning.precision, tuning.streams, tuning.threads, tuning.in_flight):
        return False
    if trial.bucket is not None:
        return trial.bucket in tuning.packing.buckets
    return trial.budget_tokens == tuning.packing.budget_tokens


def _named(trials: list[TrialFacts]) -> dict[str, list[TrialFacts]]:
    named: dict[str, list[TrialFacts]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.bucket.sequence if trial.bucket else 0):
        sequence = f" x {trial.bucket.sequence} tokens" if trial.bucket else ""
        named[f"{_mode_words(trial)}{sequence}"].append(trial)
    return named


def _mode_words(mode: TrialFacts | Tuning) -> str:
    together = f"{mode.streams} x {mode.threads} threads" if mode.streams > 1 or mode.in_flight == 1 else ""
    return f"{mode.precision}, {together or f'{mode.in_flight} in flight'}"


def _packing_words(packing: Packing) -> str:
    if packing.buckets:
        return "batches of " + ", ".join(_bucket_words(bucket) for bucket in packing.buckets) + " tokens"
    return f"up to {packing.budget_tokens} padded tokens per batch"


def _bucket_words(bucket: Bucket) -> str:
    return f"{bucket.rows} x {bucket.sequence}"


def _tokens(trial: TrialFacts) -> int:
    return trial.budget_tokens if trial.bucket is None else trial.bucket.rows * trial.bucket.sequence


def _rate(trial: TrialFacts) -> float:
    return trial.useful_tokens / max(trial.seconds, 1e-9)


def _peak(trial: TrialFacts) -> float:
    return (trial.peak_bytes or 0) / MIB


def _table(tuning: Tuning) -> Markup:
    rows = []
    for number, trial in enumerate(tuning.trials, 1):
        batch = _bucket_words(trial.bucket) if trial.bucket else str(trial.budget_tokens)
        result = trial.failure if trial.failure else f"{_rate(trial):,.0f}"
        memory = ["unknown" if one is None else size(one) for one in (trial.peak_bytes, trial.predicted_peak_bytes)]
        seconds = f"{trial.open_seconds + trial.seconds:.2f}"
        rows.append((str(number), batch, result, seconds, *memory, _mode_words(trial)))
    head = ("trial", "batch", "tokens/s", "seconds", "peak", "at most", "mode")
    every = table(rows, head=head, numbers=range(6))
    return Markup("<details><summary>Every trial</summary>{}</details>").format(every)
