# shellcheck shell=bash
# Source this from the other scripts, after script/setup.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034  # the scripts use it
python=$root/.venv/bin/python
export PYTHONPATH=$root
export PATH=$root/.venv/bin:$PATH

. "$root/script/malloc.sh"

# No library reports home. (Downloads happen only for a base_model that names a hub repository;
# HF_HUB_OFFLINE=1 forbids those as well.)
export DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1

# transformers warns at every start that torchvision, which nothing here uses, is missing.
export TRANSFORMERS_VERBOSITY=${TRANSFORMERS_VERBOSITY:-error}
