"""What a pickle may not hold, and how it is refused: opcodes by their names in Python's Lib/pickletools.py."""

import pickletools

from vramplan.errors import UsageError

HINT = "give the file that torch.cuda.memory._dump_snapshot wrote; nothing in this one was executed"


class HostilePickle(UsageError):
    """A pickle that asks for more than plain data, or for more of it than is allowed."""


#: Opcodes by name.
CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_NAMES = {code: name for name, code in CODES.items()}
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def refused(opcode: int) -> HostilePickle:
    """The error for an opcode that plain data does not need."""
    name = _NAMES.get(opcode)
    if name is None:
        return HostilePickle(f"this is no pickle: byte 0x{opcode:02x} is no opcode", hint=HINT)
    if name in _CALLS:
        what = f"the pickle would import or call code when it is loaded (opcode {name}): refused"
    elif "PERSID" in name:
        what = f"the pickle refers to objects outside itself (opcode {name}): refused"
    else:
        what = f"the pickle holds more than plain data (opcode {name}): refused"
    return HostilePickle(what, hint=HINT)
