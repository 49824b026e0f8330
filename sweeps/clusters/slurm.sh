#!/usr/bin/env bash
# A sweep on Slurm: `sbatch slurm.sh STUDY [field=value ...]`. Change the numbers below to what your
# trials need. Run it in the checkout's folder, on a file system that all nodes share, after one
# `make setup` and one `ray get-auth-token --generate` there. The study's `store:` is a folder of that
# file system, or s3://. If a job ends at its time limit, submit it again to resume.
#
# The job runs the code of this checkout; its commit is the first line of the log.
#SBATCH --job-name=lth
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --output=lth-%j.log
# --exclusive: at the end of a sweep Ray kills all of its processes on a node, those of other jobs
# too. --signal: three minutes before the limit, Slurm sends SIGTERM to this script alone, which runs
# leave.sh on all nodes. To end a job sooner without a loss: `scancel --batch --signal=TERM JOB`;
# `scancel JOB` loses the steps since the last checkpoints.
set -euo pipefail

export PATH=$PWD/.venv/bin:$PATH
git describe --always --dirty
export RAY_AUTH_MODE=token # the token is in ~/.ray/auth_token, which the nodes share
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds in which all nodes must start

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # consecutive jobs use different ports

leave() {
  if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --exclude="$head" --nodes=$((SLURM_JOB_NUM_NODES - 1)) \
      --ntasks=$((SLURM_JOB_NUM_NODES - 1)) bash sweeps/clusters/leave.sh || true
  fi
  bash sweeps/clusters/leave.sh # the head last: the end of its Ray ends the sweep and all trials
}
trap leave TERM

export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" # since Slurm 22.05 srun has one CPU otherwise
srun --kill-on-bad-exit=1 \
  ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --include-dashboard=false \
  -- lth sweep "$@" --address auto &
wait $! # bash runs a trap only after a foreground command has ended
