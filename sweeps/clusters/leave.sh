#!/usr/bin/env bash
# Call it on a machine that is about to go, before anything stops Ray: its trials keep what they
# train as it stands and go on elsewhere from the same step. Ray, told to stop, kills them at once.
#
#   leave.sh [RAYLET ...]    process ids, where several nodes share a machine; else, this user's
#
# Needs pgrep, and `ray` on the path with the token that the cluster asks for. Ends when no trial is
# left, after 80 seconds at the latest. A node that has nothing more to do ends its Ray by itself.
set -euo pipefail
PATIENCE=80

leave() {
  local raylet=$1 said trials
  said=$(tr '\0' '\n' <"/proc/$raylet/cmdline")
  [ -n "$said" ] || return 0 # it has ended
  # First of all it is given no more work, or its trials would begin again right here.
  timeout 30 ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "told to leave" \
    --deadline-remaining-seconds "$PATIENCE" --node-id "$(sed -n 's/^--node_id=//p' <<<"$said")" \
    --address "$(sed -n 's/^--gcs-address=//p' <<<"$said")" ||
    echo "leave.sh: the head does not answer; trials are told to end all the same" >&2
  # Ray's names of a trial's process, at work and at rest. Told every second: it may be starting.
  while trials=$(pgrep -P "$raylet" -f '^ray::(ResourceTrainable|Worker)') && ((SECONDS < PATIENCE)); do
    xargs kill <<<"$trials" 2>/dev/null || true
    sleep 1
  done
  [ -z "$trials" ] || echo "leave.sh: still at work after $PATIENCE s: ${trials//$'\n'/ }" >&2
}

if [ $# -eq 0 ]; then
  mapfile -t raylets < <(pgrep -u "$UID" -x raylet)
  set -- "${raylets[@]}"
fi
for raylet; do
  leave "$raylet" &
done
wait
