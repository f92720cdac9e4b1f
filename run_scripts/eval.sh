#!/usr/bin/env bash
# Scores the checkpoints of a fine-tuned model by decoding greedily:
#
#   TASK=trec run_scripts/eval.sh
#
#   TASK            trec, sst2, ...: one of `mtf_conv list tasks`
#   DECODE_LENGTH   that of runs/eval.gin when not set

set -euo pipefail

# shellcheck source=command.sh source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/command.sh"

require TASK 'one of mtf_conv list tasks'
start_command "$(model_dir "$TASK")"
add_file runs/eval.gin
add_param "MIXTURE_NAME = $(gin_string "$TASK")"
[[ -z "${DECODE_LENGTH:-}" ]] || add_param "DECODE_LENGTH = $DECODE_LENGTH"
run_command "$@"
