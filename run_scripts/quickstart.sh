#!/usr/bin/env bash
# Pre-trains convolutions and a Transformer, fine-tunes them with and without
# that, and prints what pre-training gained each; --help says what it can do.

set -euo pipefail

# shellcheck source=environment.sh source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
exec python -m mtf_conv.commands.quickstart "$@"
