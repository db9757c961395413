#!/bin/bash
# gta2cs on 4 machines of 8 GPUs: `sbatch slurm.sh`, once. It saves before its time is over and queues itself again.
#SBATCH --job-name=fastuda
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail

run=/shared/runs/gta2cs  # every machine sees it; the first rank writes it
export FASTUDA_CACHE=/local/$USER/fastuda  # each machine's own disk: packed once, kept between jobs
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))  # torchrun would leave each rank one
mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

# Slurm sends USR1 to all processes of the step. The ranks save and end; torchrun would die of it, so it ignores it.
code=0
srun --kill-on-bad-exit=1 bash -c 'trap "" USR1; exec "$@"' on-each-machine \
  torchrun \
  --nnodes="$SLURM_NNODES" \
  --nproc-per-node="$SLURM_GPUS_ON_NODE" \
  --max-restarts=3 \
  --rdzv-backend=c10d \
  --rdzv-endpoint="${machines[0]}:$((20000 + SLURM_JOB_ID % 10000))" \
  --rdzv-id="$SLURM_JOB_ID" \
  -m fastuda_cli -- train gta2cs \
  --source /shared/gta5 --target /shared/cityscapes \
  --run "$run" --resume || code=$?

# Under torchrun a run that was stopped ends with 0, too: what it has not written yet says that it is not over.
if [ "$code" -eq 0 ] && [ ! -e "$run/results.json" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
