"""The keys of every format: which tell what it is, which matter, which do not, which are refused."""

from collections.abc import Mapping

from vramplan.importers.keys import Format
from vramplan.importers.vocabulary.axolotl import AXOLOTL
from vramplan.importers.vocabulary.base import Vocabulary
from vramplan.importers.vocabulary.llamafactory import LLAMAFACTORY
from vramplan.importers.vocabulary.peft import PEFT
from vramplan.importers.vocabulary.torchtune import TORCHTUNE
from vramplan.importers.vocabulary.trl import TRL

VOCABULARIES: Mapping[Format, Vocabulary] = {
    Format.TRL: TRL,
    Format.AXOLOTL: AXOLOTL,
    Format.LLAMAFACTORY: LLAMAFACTORY,
    Format.TORCHTUNE: TORCHTUNE,
    Format.PEFT: PEFT,
}
