# shellcheck shell=bash
# What pretrain.sh, finetune.sh and eval.sh share. They are set up by variables:
#
#   MODEL          lightconv (default), or another of mtf_conv list models
#   SIZE           tiny, mini (default), small, base or large
#   MODEL_DIR      the folder of the checkpoints, may be gs://...
#   DATA_DIR       TFDS's data folder; TFDS's own choice when not set
#   HARDWARE       cpu (default), gpu or tpu
#   NUM_GPUS       with gpu: 1 (default) or more, of this machine
#   TPU_NAME       with tpu: its name, or `local` on the only host of a TPU
#   TPU_TOPOLOGY   with tpu: v3-8, v3-32 (default), ...
#   TPU_ZONE, TPU_PROJECT   with tpu: where it is, if that is not found out
#   MODEL_PARALLELISM   with gpu and tpu: how many share a model, 1 (default)
#
# All arguments are flags that t5_mesh_conv gets after those that are made of
# the variables, so that they win; but for these two:
#
#   --dry_run   prints the command and starts nothing
#   --help      prints this

_folder="$(dirname -- "${BASH_SOURCE[0]}")"
# shellcheck source=functions.sh source-path=SCRIPTDIR
source "$_folder/functions.sh"
help_with "${BASH_SOURCE[0]}" "$@"

# Prints text as a string of gin's: a path may hold a quote.
gin_string() {
  local text="${1//\\/\\\\}"
  echo "'${text//\'/\\\'}'"
}

# model_dir STAGE: prints $MODEL_DIR or what stands for it.
model_dir() {
  echo "${MODEL_DIR:-runs/${MODEL:-lightconv}.${SIZE:-mini}/$1}"
}

# Puts the flags that all three scripts have into the array `command`.
start_command() {
  local hardware="${HARDWARE:-cpu}" name
  command=(
    t5_mesh_conv "--model_dir=$1"
    "--gin_file=models/${MODEL:-lightconv}.${SIZE:-mini}.gin"
    "--gin_file=hardware/$hardware.gin")
  [[ -z "${DATA_DIR:-}" ]] || command+=("--t5_tfds_data_dir=$DATA_DIR")
  if [[ "$hardware" == tpu ]]; then
    require TPU_NAME 'the name of the TPU, or local on its only host'
    command+=("--tpu=$TPU_NAME")
    [[ -z "${TPU_ZONE:-}" ]] || command+=("--tpu_zone=$TPU_ZONE")
    [[ -z "${TPU_PROJECT:-}" ]] || command+=("--gcp_project=$TPU_PROJECT")
    [[ -z "${TPU_TOPOLOGY:-}" ]] ||
      add_param "TPU_TOPOLOGY = $(gin_string "$TPU_TOPOLOGY")"
  fi
  for name in NUM_GPUS MODEL_PARALLELISM; do
    [[ -z "${!name:-}" || "$hardware" == cpu ]] || add_param "$name = ${!name}"
  done
}

add_file() { command+=("--gin_file=$1"); }
add_param() { command+=("--gin_param=$1"); }

# run_command ARGUMENT ...: runs the command, with these flags at its end.
run_command() {
  local argument dry_run=''
  for argument in "$@"; do
    if [[ "$argument" == --dry_run ]]; then
      dry_run=1
    else
      command+=("$argument")
    fi
  done
  if [[ -n "$dry_run" ]]; then
    for argument in "${command[@]}"; do
      [[ "$argument" == "${command[0]}" ]] || printf ' \\\n  '
      printf '%s' "$(quoted "$argument")"
    done
    echo
    exit
  fi
  # shellcheck source=environment.sh source-path=SCRIPTDIR
  source "$_folder/environment.sh"
  exec "${command[@]}"
}
