"""What training and inference must agree on, each thing once."""

import logging

# diffusers and peft import bitsandbytes wherever it is installed; on some CPUs it then complains of
# a kernel that nothing here needs
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
