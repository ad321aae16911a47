#!/usr/bin/env bash
# hbt on the GPUs of a Slurm cluster, one task for each GPU; jax finds the tasks by itself.
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     -m hbt.main --config=FILE --workdir=DIR --config.distributed=true
# The other verbs are Slurm's: tail -f hbt-JOB.log, squeue --me, scancel JOB. The working directory
# lies where all hosts see it. $PYTHON is the interpreter, python if it is not set.
#SBATCH --job-name=hbt
#SBATCH --output=hbt-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail

# Tasks end one after the other; those whose fellows are gone may never end.
code=0
srun --label --wait=120 "${PYTHON:-python}" "$@" || code=$?
if ((code == 75)); then # EX_TEMPFAIL: preempted or out of time, the state is saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
