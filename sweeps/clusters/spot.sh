#!/usr/bin/env bash
# Runs on an AWS spot worker until the instance ends: asks EC2 every 5 seconds, as AWS recommends,
# for a notice that the instance will be taken, and then runs leave.sh. The notice comes two minutes
# before the end.
#
#   spot.sh [ENDPOINT]    endpoint of the instance metadata; a second spot.sh exits at once
set -uo pipefail
metadata=${1:-http://169.254.169.254}/latest

exec 9>"${TMPDIR:-/tmp}/lth-spot-$UID"
flock -n 9 || exit 0

noticed() { # EC2 answers 404 while there is no notice
  token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token") &&
    curl -sf -m 2 -o /dev/null -H @- "$metadata/meta-data/spot/instance-action" <<<"X-aws-ec2-metadata-token: $token"
}

# The loop continues after a notice: an autoscaler may restart Ray here within the two minutes.
while sleep 5; do
  if noticed; then bash "$(dirname "$0")/leave.sh"; fi
done
