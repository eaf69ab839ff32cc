"""The tuner: observations in, next trial out. Pure: no clock, no device, no session.

    space = Space(modes=(...,), budgets_tokens=powers_of_two(128, 16384))     # any shape runs: CPU, CUDA, OpenVINO
    space = Space(modes=(...,), buckets=ladder_buckets((32, 64, 128, 256), longest=512, most_rows=256,
                                                       most_tokens=16384))    # fixed shapes: DirectML, QNN, WebGPU
    tuner = Tuner(space, tokens.lengths, Limits(ceiling_bytes=..., expected_tokens=...), seed=0)
    while (trial := tuner.next()) is not None:
        tuner.observe(trial, observation_of(trial))
    pick = tuner.pick()

The lengths are those of a sample of the user's own documents, whose longest text should be about as long as the
job's, and of which there should be enough to fill the largest budget a few times. Who runs a trial

- opens a session for `trial.knobs.session` unless the last trial left that one open, closes any other, and
  reports the seconds it took apart from those of the batches;
- runs `trial.batches` as they are (their rows index the sample), all handed over at once, and reports seconds, the
  peak above what was taken before the session was opened, and "out of memory" or the error as `failure`.

`pick` has an answer at any time: before the first trial the smallest size, after it the best of what ran.
It raises DeviceError, as does the constructor, where not even the smallest batch fits, and names what that needs.
An arm fails with its error; where nothing in its mode ran before, the mode is given up.

How it works, file by file:

- `space`: what is possible; `arms`: every point of it as arrays, and the texts that a trial runs.
- `memory`: what each point may need at the most. No trial starts whose bound passes the ceiling; growth is bounded
  by a stated factor from something that ran twice. After a refusal nothing as large is tried again, and nothing
  new above the largest peak that was held.
- `surrogate`: what each point's time may be, a cost model (launch, padded tokens, scores of attention) under a
  Gaussian process; the first run of a point only counts until its second one.
- `objective`: the best choice for given times, over the whole distribution of lengths: the cheapest budget, or the
  cheapest ladder by dynamic programming under the ceiling; sessions and compiled shapes are paid off over the job.
- `spent`: seconds so far, and what a trial would take; it must fit into what is left.
- `checks`: what is run beside that, so that nothing is picked unseen and nothing hides between two sizes.
- `tuner`: which trial is next, by CLUCB (Chen et al., NIPS 2014) with the process's deviations as confidence.
"""

from embedmill.tune.search.space import Knobs, Mode, Space, ladder_buckets, powers_of_two
from embedmill.tune.search.tuner import Tuner
from embedmill.tune.search.types import OUT_OF_MEMORY, Limits, Observation, Observed, Pick, Trial

__all__ = [
    "OUT_OF_MEMORY",
    "Knobs",
    "Limits",
    "Mode",
    "Observation",
    "Observed",
    "Pick",
    "Space",
    "Trial",
    "Tuner",
    "ladder_buckets",
    "powers_of_two",
]
