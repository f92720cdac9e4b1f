#!/usr/bin/env bash
# Deletes the TPU, whatever runs on it; its checkpoints are in their bucket:
#
#   TPU_NAME=conv TPU_ZONE=europe-west4-a run_scripts/tpu/delete.sh

set -euo pipefail

# shellcheck source=gcloud.sh source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/gcloud.sh"

mention_at_exit
left='may still be there'
if [[ -n "${TPU_QUEUED:-}" ]]; then
  # With its TPU, which an active one does not give up without --force.
  tpus queued-resources delete "$TPU_NAME" --force --quiet
else
  tpus tpu-vm delete "$TPU_NAME" --quiet
fi
left=''
