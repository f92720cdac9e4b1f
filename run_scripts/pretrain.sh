#!/usr/bin/env bash
# Pre-trains a model with span corruption, as section 4.2.1 of the paper:
#
#   MODEL=dynamicconv run_scripts/pretrain.sh
#
#   TASK   text_span_corruption (default), which reads the files that
#          MTF_CONV_TEXT names; c4_span_corruption, which reads TFDS's C4

set -euo pipefail

# shellcheck source=command.sh source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/command.sh"

start_command "$(model_dir pretrain)"
add_file objectives/span_3_15.gin
add_file runs/pretrain.gin
add_param "MIXTURE_NAME = $(gin_string "${TASK:-text_span_corruption}")"
run_command "$@"
