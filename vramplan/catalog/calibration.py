"""What `vramplan calibrate` measured on this user's own GPUs: one small JSON file, kept where XDG says."""

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

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
    write_whole(file, json.dumps({card: asdict(value) for card, value in kept.items()}, indent=1))
    _read.cache_clear()
    return file


@cache
def _read(file: Path) -> dict[str, Calibration]:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        return {name: Calibration(**facts) for name, facts in body.items()}
    except OSError:  # none was made, or the home cannot be read: the catalogue's figures stand
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file} is not a calibration: {error}", hint="remove it, or run `vramplan calibrate` again after that"
        ) from error
