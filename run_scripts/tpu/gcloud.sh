# shellcheck shell=bash
# What create.sh, run.sh and delete.sh share. They are set up by variables:
#
#   TPU_NAME       the name of the TPU
#   TPU_ZONE       its zone, for instance europe-west4-a
#   TPU_PROJECT    its project; that of gcloud's configuration when not set
#   TPU_TOPOLOGY   v2-8, v3-32 (default), v4-8, ...: the number is that of cores
#   TPU_QUEUED     1: a queued resource, which waits until a TPU is free
#
# They need gcloud, logged in. --dry_run prints the commands of gcloud and calls
# none, --help prints this. While a TPU may be there, each of them ends by
# saying so, however it ends, with the command that deletes it.

# shellcheck disable=SC2034  # The scripts that source this use root and pod.

_folder="$(dirname -- "${BASH_SOURCE[0]}")"
root="$(CDPATH='' cd -- "$_folder/../.." && pwd)"
# shellcheck source=../functions.sh source-path=SCRIPTDIR
source "$_folder/../functions.sh"
help_with "${BASH_SOURCE[0]}" "$@"

require TPU_NAME 'a name for the TPU'
require TPU_ZONE 'its zone, such as europe-west4-a'
topology="${TPU_TOPOLOGY:-$(sed -n "s/^TPU_TOPOLOGY = '\(.*\)'/\1/p" \
  "$root/gin/hardware/tpu.gin")}"
_topologies="$(grep -o '"v[0-9]*-[0-9]*"' "$root/mtf_conv/tpus.json")"
grep -q "^  \"${topology%%-*}\":" "$root/mtf_conv/tpus.json" &&
  [[ "$_topologies" != *"\"${topology%%-*}-"* ]] &&
  fail "TPU_TOPOLOGY (=$topology): TPUEstimator, through which T5 trains, \
crashes on ${topology%%-*} (tensorflow/tensorflow#90807): take v2, v3 or v4"
[[ "$_topologies" == *"\"$topology\""* ]] ||
  fail "TPU_TOPOLOGY (=$topology) does not exist: choose from $(
    echo "$_topologies" | tr -d '"' | paste -sd ' ')"
# A host has 8 cores; what has more of them is a pod, and wants its own image.
pod=''
[[ "${topology#*-}" -le 8 ]] || pod=1

dry_run=''
for _argument in "$@"; do
  [[ "$_argument" != --dry_run ]] || dry_run=1
done
[[ -n "$dry_run" ]] || command -v gcloud >/dev/null ||
  fail 'there is no gcloud on the PATH: install the Google Cloud SDK'

# Calls `gcloud compute tpus`, here; or prints the call.
tpus() {
  local call=(gcloud compute tpus "$@" "--zone=$TPU_ZONE")
  [[ -z "${TPU_PROJECT:-}" ]] || call+=("--project=$TPU_PROJECT")
  if [[ -n "$dry_run" ]]; then
    quoted "${call[@]}"
  else
    "${call[@]}"
  fi
}

# on_host COMMAND: runs it in the home folder of the TPU's first host.
on_host() {
  tpus tpu-vm ssh "$TPU_NAME" --worker=0 "--command=$1"
}

# Says at the end of the script, however it ends, what may have been left. Until
# a script knows better it says that the TPU may be there.
left='may be there'
_mention() {
  local code=$?
  [[ -n "$left" && -z "$dry_run" ]] || return "$code"
  {
    echo "The TPU $TPU_NAME ($topology, $TPU_ZONE) $left, and costs what it" \
      'costs until it is deleted:'
    echo "  TPU_NAME=$TPU_NAME TPU_ZONE=$TPU_ZONE${TPU_PROJECT:+ \
TPU_PROJECT=$TPU_PROJECT}${TPU_QUEUED:+ TPU_QUEUED=1}" \
      'run_scripts/tpu/delete.sh'
  } >&2
  return "$code"
}
mention_at_exit() {
  trap _mention EXIT
  # Ends by the trap above when it is stopped, too.
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}
