"""What `vramplan calibrate` measured on this user's own GPUs: one small JSON file, kept where XDG says."""

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import msgspec

from vramplan.errors import UsageError
from vramplan.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a process holds on one card beside its tensors, and where the figures come from."""

    gpu: str
    """As the driver calls it."""
    context: int
    """Bytes outside torch's allocator after training steps."""
    workspaces: int
    """Bytes of cuBLAS's workspaces, inside the allocator."""
    driver: str
    torch: str
    date: str

    @property
    def origin(self) -> str:
        """For the note of an entry."""
        return f"calibrated on this machine's {self.gpu}, driver {self.driver}, torch {self.torch}, {self.date}"


def calibration_file() -> Path:
    """`$XDG_CONFIG_HOME/vramplan/calibration.json`, by default below ~/.config."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home else Path("~/.config").expanduser()) / "vramplan" / "calibration.json"


def calibration(name: str) -> Calibration | None:
    """The calibration of the catalogue's card `name`; None when this user has made none."""
    return _read(calibration_file()).get(name)


def save_calibration(name: str, made: Calibration) -> Path:
    """Keep `made` beside the calibrations of other cards; the file is written whole or not at all."""
    file = calibration_file()
    kept = {**_read(file), name: made}
    try:
        write_whole(file, json.dumps({card: asdict(value) for card, value in kept.items()}, indent=1))
    except OSError as error:
        raise _cannot_keep(file, error.strerror) from error
    _read.cache_clear()
    return file


def check_calibration_place() -> None:
    """Make the file's directory, and refuse what could not be kept: before minutes of measuring."""
    file = calibration_file()
    _read(file)  # a damaged file would be refused at the end
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_keep(file, error.strerror) from error
    if not os.access(file.parent, os.W_OK):
        raise _cannot_keep(file, "permission denied")


def _cannot_keep(file: Path, why: str | None) -> UsageError:
    return UsageError(f"cannot write {file}: {why}", hint="set XDG_CONFIG_HOME to a directory of yours")


@cache
def _read(file: Path) -> dict[str, Calibration]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Calibration])
    except OSError:  # none was made, or the home cannot be read: the catalogue's figures stand
        return {}
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{file} is not a calibration: {error}", hint="remove it, or run `vramplan calibrate` again after that"
        ) from error
