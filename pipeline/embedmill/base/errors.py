"""Every error a user can meet, in one tree; each class carries its process exit code.

PipelineError
├── ConfigError             2   the configuration or the command line is wrong
├── InputError              3   an input file is missing, unreadable or of the wrong shape
├── ModelError              4   a model folder or bundle is missing, incomplete or damaged
├── DeviceError             5   a provider cannot be used, or a session failed
│   ├── OutOfMemory             there is no memory for a batch, or for anything else
│   └── DeviceLost              the device was reset, or the process that drives it ended or hung
├── OutputError             6   the output folder cannot be used
│   ├── Locked                  another run owns the output folder
│   ├── FingerprintMismatch     the folder holds the output of another job
│   └── Corrupt                 a committed file is missing or damaged
├── TooManyQuarantined      7   the run finished, with more bad rows than allowed
└── ConservationError       1   rows went missing inside the program: a defect, never the user's doing

Stopped                     128 + signal number; everything committed is kept
"""


class PipelineError(Exception):
    """The root: one sentence that says what happened, where, and what to do."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class InputError(PipelineError):
    """An input file is missing, unreadable or of the wrong shape."""

    exit_code = 3


class ModelError(PipelineError):
    """A model folder or bundle is missing, incomplete or damaged."""

    exit_code = 4


class DeviceError(PipelineError):
    """A provider cannot be used, or a session failed."""

    exit_code = 5


class OutOfMemory(DeviceError):
    """There is no memory for a batch or a session, where a smaller one may fit; or for anything else of a command."""


class DeviceLost(DeviceError):
    """The device was reset or taken away, or the process that drives it ended or hung: a new process may go on."""


class OutputError(PipelineError):
    """The output folder cannot be used."""

    exit_code = 6


class Locked(OutputError):
    """Another run owns the output folder."""


class FingerprintMismatch(OutputError):
    """The output folder holds the result of another job; `field` names the first difference."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class Corrupt(OutputError):
    """A committed file is missing or damaged."""


class TooManyQuarantined(PipelineError):
    """The run finished, with more rows in quarantine than `rows.max_quarantined` allows."""

    exit_code = 7


class ConservationError(PipelineError):
    """Rows read differ from rows written, quarantined and skipped: a defect of this program."""


class Stopped(BaseException):
    """A signal ended the run; everything committed is kept.

    Like KeyboardInterrupt it is no Exception: what handles errors on the way must not swallow it.
    """

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
