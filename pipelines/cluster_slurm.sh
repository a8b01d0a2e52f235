#!/bin/bash
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue

# MaskCut on all GPUs of four nodes: `sbatch cluster_slurm.sh`. Ray (2.49 or later) starts on all of
# them, the command runs on the first one, and Ray ends with it. The environment, the images and the
# output lie where all nodes see them. A job that is requeued goes on from its journal.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  crate-interp maskcut --model crate_alpha_L8.in21k --coco val2017 --cluster auto
