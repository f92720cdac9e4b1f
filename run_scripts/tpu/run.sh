#!/usr/bin/env bash
# Runs pretrain.sh, finetune.sh or eval.sh on the TPU and follows it:
#
#   MODEL=dynamicconv SIZE=base TASK=c4_span_corruption \
#     MODEL_DIR=gs://BUCKET/dynamicconv DATA_DIR=gs://BUCKET/data \
#     TPU_NAME=conv TPU_ZONE=europe-west4-a run_scripts/tpu/run.sh pretrain
#
# The variables are those of that script, but for HARDWARE, and arguments after
# its name go to it; MTF_CONV_TEXT and MTF_CONV_VOCAB are passed on, too, and
# name files on the TPU's first host. It runs on without this terminal: when the
# connection is lost, the same command follows it again, from the beginning of
# its log. When it has ended, the same command starts it again, which goes on
# from the last checkpoint.

set -euo pipefail

# shellcheck source=gcloud.sh source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/gcloud.sh"

stage="${1:-}"
case "$stage" in
  pretrain | finetune | eval) shift ;;
  *) fail "unknown script '$stage': choose from pretrain, finetune, eval" ;;
esac
# A TPU reads and writes buckets only, and its own disks go with it.
[[ "${MODEL_DIR:-}" == gs://* ]] ||
  fail "MODEL_DIR (=${MODEL_DIR:-}) must be in a bucket: gs://..."

variables=(HARDWARE=tpu "TPU_TOPOLOGY=$topology")
if [[ -n "$pod" ]]; then
  # The first host drives all of them, by name, and does not take its own chips.
  variables+=("TPU_NAME=$TPU_NAME" "TPU_ZONE=$TPU_ZONE" TPU_LOAD_LIBRARY=0)
  [[ -z "${TPU_PROJECT:-}" ]] || variables+=("TPU_PROJECT=$TPU_PROJECT")
else
  variables+=(TPU_NAME=local)
fi
for name in MODEL SIZE TASK MODEL_DIR DATA_DIR MODEL_PARALLELISM PRETRAINED \
  LEARNING_RATE TRAIN_STEPS DECODE_LENGTH MTF_CONV_TEXT MTF_CONV_VOCAB; do
  [[ -z "${!name:-}" ]] || variables+=("$name=${!name}")
done
flags=()
for argument in "$@"; do
  [[ "$argument" == --dry_run ]] || flags+=("$argument")
done
# What is wrong with the variables is found here, before the TPU is asked.
command="$(env "${variables[@]}" "$root/run_scripts/$stage.sh" \
  ${flags[@]+"${flags[@]}"} --dry_run)"
[[ -z "$dry_run" ]] || echo "$command"

mention_at_exit
left='is there'
on_host "$(quoted bash mtf_conv/run_scripts/tpu/follow.sh env \
  "${variables[@]}" "mtf_conv/run_scripts/$stage.sh" \
  ${flags[@]+"${flags[@]}"})"
