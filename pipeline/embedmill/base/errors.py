"""Errors shown to users, with the exit code of each.

PipelineError
├── ConfigError             2   the configuration or the command line is wrong
├── InputError              3   an input file is missing, unreadable or of the wrong shape
├── ModelError              4   a model folder or bundle is missing, incomplete or damaged
│   └── TokenizerFailed         the tokenizer fails on a text; a run sets its row aside
├── DeviceError             5   a provider cannot be used, or a session failed
│   ├── NoRuntime               ONNX Runtime cannot be loaded
│   ├── OutOfMemory             no memory for a batch, or for anything else
│   └── DeviceLost              the device was reset, or the worker process ended or hung
├── OutputError             6   the output folder cannot be used
│   ├── Locked                  another run owns the output folder
│   ├── FingerprintMismatch     the folder holds the output of another job
│   └── Corrupt                 a committed file is missing or damaged
├── TooManyQuarantined      7   the run finished, with more bad rows than allowed
└── ConservationError       1   rows were lost inside the program: a defect of embedmill

Stopped                     128 + signal number; everything committed is kept
"""


class PipelineError(Exception):
    """Base class: one sentence with cause, place and remedy."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class InputError(PipelineError):
    """An input file is missing, unreadable or wrongly structured."""

    exit_code = 3


class ModelError(PipelineError):
    """A model folder or bundle is missing, incomplete or damaged."""

    exit_code = 4


class TokenizerFailed(ModelError):
    """The tokenizer fails on a text."""


class DeviceError(PipelineError):
    """A provider cannot be used, or a session failed."""

    exit_code = 5


class NoRuntime(DeviceError):
    """ONNX Runtime cannot be loaded."""


class OutOfMemory(DeviceError):
    """Memory ran out; a smaller batch or session may fit."""


class DeviceLost(DeviceError):
    """Device reset or removed, worker ended or hung: restart possible."""


class OutputError(PipelineError):
    """The output folder cannot be used."""

    exit_code = 6


class Locked(OutputError):
    """Another run owns the output folder."""


class FingerprintMismatch(OutputError):
    """The output folder belongs to another job, as `field` shows."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class Corrupt(OutputError):
    """A committed file is missing or damaged."""


class TooManyQuarantined(PipelineError):
    """The run finished with more rows quarantined than allowed."""

    exit_code = 7


class ConservationError(PipelineError):
    """Row counts do not add up: a defect of embedmill."""


class Stopped(BaseException):
    """A signal ended the run; everything committed is kept."""

    # Like KeyboardInterrupt no Exception: error handlers on the way must not swallow it.

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
