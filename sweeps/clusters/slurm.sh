#!/usr/bin/env bash
# A sweep on Slurm: `sbatch slurm.sh STUDY [field=value ...]`. Change the numbers below to what your
# trials need. Called in the checkout's folder on a file system that all nodes share; `make setup`
# and `ray get-auth-token --generate` were called there once. The study's `store:` is a folder of
# that file system, or s3://. A job that ends at its time limit is submitted again and goes on.
#
# What is swept is this checkout; its commit is the first line of the log.
#SBATCH --job-name=lth
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --output=lth-%j.log
# --exclusive, because Ray ends all of its processes on a node when the sweep is over, whoever
# started them. --signal: three minutes before the end this script, and nothing else, is told, and
# lets the trials leave. To end a job sooner without a loss: `scancel --batch --signal=TERM JOB`;
# `scancel JOB` alone costs what its trials did since their last save.
set -euo pipefail

export PATH=$PWD/.venv/bin:$PATH
git describe --always --dirty
export RAY_AUTH_MODE=token # the token is in ~/.ray/auth_token, which the nodes share
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds for all nodes to start

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs that follow each other don't meet

leave() {
  if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --exclude="$head" --nodes=$((SLURM_JOB_NUM_NODES - 1)) \
      --ntasks=$((SLURM_JOB_NUM_NODES - 1)) bash sweeps/clusters/leave.sh || true
  fi
  bash sweeps/clusters/leave.sh # the head last: with its Ray goes the sweep, and all trials with it
}
trap leave TERM

srun --kill-on-bad-exit=1 \
  ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$SLURM_GPUS_ON_NODE" --include-dashboard=false \
  -- lth sweep "$@" --address auto &
wait $! # not in the foreground, where bash would hear of TERM when it is over
