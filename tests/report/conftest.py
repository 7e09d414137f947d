"""The made-up results of the tests above are for the tests here too, also when these run alone."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent.parent))
