"""Pure search for the best batches: no clock, no device.

    space = Space(modes=(...,), default=Packing(budget_tokens=512), budgets_tokens=powers_of_two(128, 8192))
    pick = find_pick(space, tokens.lengths, Limits(ceiling_bytes=..., expected_tokens=...), observe)

The lengths are those of a sample of the user's own documents, whose longest text should be about as long as the job's
and which fills the largest budget a few times. `observe` opens a session for `trial.knobs.session` unless the last
trial left that one open, runs `trial.batches` as they are (rows index the sample), all submitted at once, and reports
an `Observation`.

File by file:

- `sweep`: where any shape runs (CPU, CUDA), every budget of every mode in rounds, the worse half dropped after each.
- `ladder`: where shapes are fixed (DirectML, QNN, WebGPU, ...), a search: `arms` are the shapes as arrays, `memory`
  bounds what each may need, `surrogate` says how fast it may be, `objective` finds the cheapest ladder for given times.
  The next trial is chosen by CLUCB (Chen et al., NIPS 2014) with the deviations of the surrogate as confidence.
- `duel`: the pick and the default in paired runs; a pick that does not gain is dropped.
- `trials`: the journal that all three share.
"""

from embedmill.tune.search.space import Knobs, Mode, Space, ladder_buckets, powers_of_two
from embedmill.tune.search.tuner import find_pick
from embedmill.tune.search.types import OUT_OF_MEMORY, Limits, Observation, Pick, Trial

__all__ = [
    "OUT_OF_MEMORY",
    "Knobs",
    "Limits",
    "Mode",
    "Observation",
    "Pick",
    "Space",
    "Trial",
    "find_pick",
    "ladder_buckets",
    "powers_of_two",
]
