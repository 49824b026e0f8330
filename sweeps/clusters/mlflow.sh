#!/usr/bin/env bash
# Start MLflow on a cluster's head node, for `tracking: {uri: http://ADDRESS:5000}`. It runs on when
# the shell ends; a second call restarts it.
#
#   mlflow.sh ARTIFACTS [ADDRESS]    a folder or s3://BUCKET/PREFIX; this node's private address, by
#                                    default the first one of `hostname -I`
#
# The password of its user `admin` is MLFLOW_TRACKING_PASSWORD, at least 12 characters. Runs are
# stored in ~/mlflow/mlflow.db, or in the database that MLFLOW_BACKEND_STORE_URI names. Both variables
# come from the environment, which other users of the machine cannot read.
set -euo pipefail
umask 077

artifacts=$1
address=${2:-$(hostname -I | cut -d' ' -f1)}
mkdir -p ~/mlflow
cd ~/mlflow

if [ -s pid ] && grep -qs mlflow "/proc/$(cat pid)/cmdline"; then
  kill "$(cat pid)"
  timeout 20 tail --pid="$(cat pid)" -f /dev/null
fi
[ -s session-key ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >session-key

export MLFLOW_AUTH_ADMIN_PASSWORD=$MLFLOW_TRACKING_PASSWORD
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat session-key)
export MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$HOME/mlflow/mlflow.db}
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # saves 1.5 GB; sweeps need no jobs

# MLflow would hash the password at each request, for 0.2 s or more of a CPU. With this it does so
# once a minute; a password that was changed may be accepted for that long.
export MLFLOW_AUTH_CONFIG_PATH=${MLFLOW_AUTH_CONFIG_PATH:-$PWD/auth.ini}
cat >auth.ini <<'END'
[mlflow]
admin_username = admin
default_permission = READ
database_uri = sqlite:///basic_auth.db
auth_cache_ttl_seconds = 60
END

setsid nohup mlflow server --host "$address" --port 5000 --workers 2 --app-name basic-auth \
  --artifacts-destination "$artifacts" --allowed-hosts "$address:5000,localhost:5000" >>log 2>&1 </dev/null &
echo $! >pid
echo "MLflow starts on http://$address:5000 and requires a name and password. Traffic is not" \
  "encrypted: use a private address. Log: ~/mlflow/log"
