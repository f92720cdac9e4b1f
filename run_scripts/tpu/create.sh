#!/usr/bin/env bash
# Creates a TPU VM and installs this repository on its first host:
#
#   TPU_NAME=conv TPU_ZONE=europe-west4-a run_scripts/tpu/create.sh
#
#   TPU_VERSION    the software it starts with; that with TensorFlow 2.15 when
#                  not set (tpu-vm-tf-2.15.0-se or tpu-vm-tf-2.15.0-pod-se)
#   TPU_SPOT       1: cheaper, and may be taken away at any time
#   POLL_SECONDS   how often a queued resource is looked at (60)

set -euo pipefail

# shellcheck source=gcloud.sh source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/gcloud.sh"

# TPUEstimator needs the image whose TensorFlow speaks to the TPU through
# StreamExecutor, not PJRT.
version="${TPU_VERSION:-tpu-vm-tf-2.15.0${pod:+-pod}-se}"
options=("--accelerator-type=$topology")
[[ -z "${TPU_SPOT:-}" ]] || options+=(--spot)

# Waits until the queued resource has its TPU.
wait_for_resource() {
  local state='' last=''
  if [[ -n "$dry_run" ]]; then
    tpus queued-resources describe "$TPU_NAME" '--format=value(state.state)'
    return
  fi
  while [[ "$state" != ACTIVE ]]; do
    # A call that fails once in hours of waiting is no reason to give up.
    state="$(tpus queued-resources describe "$TPU_NAME" \
      '--format=value(state.state)' || echo UNKNOWN)"
    [[ "$state" == "$last" ]] || echo "$TPU_NAME: $state" >&2
    last="$state"
    case "$state" in
      ACTIVE) ;;
      FAILED | SUSPENDING | SUSPENDED)
        echo "The queued resource $TPU_NAME will get no TPU: $state" >&2
        exit 1 ;;
      *) sleep "${POLL_SECONDS:-60}" ;;
    esac
  done
}

mention_at_exit
if [[ -n "${TPU_QUEUED:-}" ]]; then
  tpus queued-resources create "$TPU_NAME" "--node-id=$TPU_NAME" \
    "${options[@]}" "--runtime-version=$version"
  wait_for_resource
else
  tpus tpu-vm create "$TPU_NAME" "${options[@]}" "--version=$version"
fi
left='is there'

on_host 'mkdir -p mtf_conv'
tpus tpu-vm scp --recurse "$root"/{gin,mtf_conv,run_scripts,tasks} \
  "$root"/{pyproject.toml,requirements.lock,setup.py} "$TPU_NAME:mtf_conv" \
  --worker=0
# TensorFlow is that of the image: pip's knows no TPU.
on_host 'MTF_CONV_SYSTEM_TENSORFLOW=1 bash mtf_conv/run_scripts/environment.sh'
