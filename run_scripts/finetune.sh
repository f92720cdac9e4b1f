#!/usr/bin/env bash
# Fine-tunes a model on a task, as section 4.2.2 of the paper:
#
#   TASK=trec PRETRAINED=runs/lightconv.mini/pretrain run_scripts/finetune.sh
#
#   TASK            trec, sst2, ...: one of `mtf_conv list tasks`
#   PRETRAINED      a checkpoint, or a folder of which the last one is taken;
#                   None trains from scratch
#   LEARNING_RATE   that of runs/finetune.gin when not set
#   TRAIN_STEPS     likewise

set -euo pipefail

folder="$(dirname -- "${BASH_SOURCE[0]}")"
# shellcheck source=command.sh source-path=SCRIPTDIR
source "$folder/command.sh"

require TASK 'one of mtf_conv list tasks'
require PRETRAINED 'a checkpoint or its folder, or None'
start_command "$(model_dir "$TASK")"
add_file runs/finetune.gin
# A task of one's own has the lengths of runs/finetune.gin, or flags for them.
[[ ! -f "$folder/../gin/sequence_lengths/$TASK.gin" ]] ||
  add_file "sequence_lengths/$TASK.gin"
add_param "MIXTURE_NAME = $(gin_string "$TASK")"
if [[ "$PRETRAINED" == None ]]; then
  add_param 'PRETRAINED = None'
else
  add_param "PRETRAINED = $(gin_string "$PRETRAINED")"
fi
for name in LEARNING_RATE TRAIN_STEPS; do
  [[ -z "${!name:-}" ]] || add_param "$name = ${!name}"
done
run_command "$@"
