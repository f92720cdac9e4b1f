#!/usr/bin/env bash
# Runs on the first host of a TPU, called by run.sh: starts a command that goes
# on when the connection is lost, unless one is running, and follows it to its
# end.
#
#   bash follow.sh COMMAND [ARGUMENT ...]
#
# In the folder it is called in it leaves job.log and job.exit, the exit code.

set -euo pipefail

# The job holds the lock as long as it lives, and however it ends.
exec 9>job.lock
if flock -n 9; then
  rm -f job.exit
  : >job.log  # Now, for tail to find it.
  # shellcheck disable=SC2016
  MTF_CONV_SYSTEM_TENSORFLOW=1 MTF_CONV_PROGRESS=0 setsid nohup \
    bash -c '"$@"; echo $? >job.exit' job "$@" >job.log 2>&1 </dev/null &
  echo $! >job.pid
else
  echo 'A job is running already; this is its log:'
fi
exec 9>&-
tail -n +1 -F --pid="$(<job.pid)" job.log
if [[ ! -f job.exit ]]; then
  echo 'The job was killed.'
  exit 1
fi
exit "$(<job.exit)"
