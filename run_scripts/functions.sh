# shellcheck shell=bash
# What the scripts of this folder and of tpu/ share.

# help_with FILE ARGUMENT ...: if --help is among the arguments, ends with the
# comments at the top of this script, and of FILE, of which it takes variables.
help_with() {
  local argument file
  for argument in "${@:2}"; do
    if [[ "$argument" == --help ]]; then
      for file in "$0" "$1"; do
        sed -n '2,/^$/s/^#\( \|$\)//p' "$file"
        echo
      done
      exit
    fi
  done
}

# fail MESSAGE: ends the script with one line.
fail() {
  echo "${0##*/}: $1; --help says what there is" >&2
  exit 2
}

# require VARIABLE WHAT: fails unless the variable is set.
require() {
  [[ -n "${!1:-}" ]] || fail "$1 is not set: $2"
}

# Prints words as one would type them.
quoted() {
  local word text='' quote='"'
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      text+=" $word"
    elif [[ "$word" =~ [\"\$\`\\!] ]]; then
      text+=" $(printf '%q' "$word")"
    elif [[ "$word" =~ ^(--[a-z_-]+=)(.*)$ ]]; then
      text+=" ${BASH_REMATCH[1]}$quote${BASH_REMATCH[2]}$quote"
    else
      text+=" $quote$word$quote"
    fi
  done
  echo "${text:1}"
}
