#!/usr/bin/env bash
# Run this on a machine that is about to end, before Ray is stopped: its trials write checkpoints and
# resume on other nodes from the same step. Ray itself, when it stops, kills them at once.
#
#   leave.sh [RAYLET ...]    process ids of raylets; by default all raylets of this user
#
# Needs pgrep, and `ray` on the path with the cluster's token. Returns when no trial is left, after
# 80 seconds at the latest. A drained node without work ends its Ray by itself.
set -euo pipefail
PATIENCE=80

leave() {
  local raylet=$1 options trials='' empty=0
  options=$(tr '\0' '\n' <"/proc/$raylet/cmdline")
  [ -n "$options" ] || return 0 # it has ended
  # Drain the node first, or its trials would start again right here.
  timeout 30 ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "leave.sh" \
    --deadline-remaining-seconds "$PATIENCE" --node-id "$(sed -n 's/^--node_id=//p' <<<"$options")" \
    --address "$(sed -n 's/^--gcs-address=//p' <<<"$options")" ||
    echo "leave.sh: the head does not answer; SIGTERM is sent to the trials all the same" >&2
  # Ray's names of a worker with and without a trial, and the program of one that is starting, to
  # which a trial may be on its way. So the signal is repeated until two looks in a row find none.
  while ((empty < 2 && SECONDS < PATIENCE)); do
    empty=$((empty + 1))
    if trials=$(pgrep -P "$raylet" -f '^ray::(ResourceTrainable|Worker)'); then
      xargs kill <<<"$trials" 2>/dev/null || true
      empty=0
    elif pgrep -P "$raylet" -f 'default_worker\.py' >/dev/null; then
      empty=0
    fi
    sleep 1
  done
  [ -z "$trials" ] || echo "leave.sh: still running after $PATIENCE s: ${trials//$'\n'/ }" >&2
}

if [ $# -eq 0 ]; then
  mapfile -t raylets < <(pgrep -u "$UID" -x raylet)
  set -- "${raylets[@]}"
fi
for raylet; do
  leave "$raylet" &
done
wait
