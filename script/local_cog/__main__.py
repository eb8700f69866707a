"""`python -m script.local_cog train|predict ...`: see `script/train` and `script/predict`."""

import sys

from script.local_cog.cli import main

sys.exit(main(sys.argv[1:]))
