#!/usr/bin/env bash
# On an AWS spot worker, runs for as long as it does: asks EC2 every 5 seconds, as AWS recommends,
# whether the instance is taken away, and then lets its trials leave (leave.sh). There are two
# minutes from the notice on.
#
#   spot.sh [ENDPOINT]    of the instance metadata; started again, it finds that it runs
set -uo pipefail
metadata=${1:-http://169.254.169.254}/latest

exec 9>"${TMPDIR:-/tmp}/lth-spot-$UID"
flock -n 9 || exit 0

noticed() { # 404 is: no notice
  token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token") &&
    curl -sf -m 2 -o /dev/null -H @- "$metadata/meta-data/spot/instance-action" <<<"X-aws-ec2-metadata-token: $token"
}

# Goes on after it: an autoscaler may start Ray here anew in what is left of the two minutes.
while sleep 5; do
  if noticed; then bash "$(dirname "$0")/leave.sh"; fi
done
