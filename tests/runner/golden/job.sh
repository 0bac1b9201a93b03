#!/bin/bash
#SBATCH --job-name=memento-counting-base
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=7630M
#SBATCH --time=02:30:00
#SBATCH --signal=B:TERM@60
#SBATCH --no-requeue
#SBATCH --partition=compute
#SBATCH --account=lab
#SBATCH --qos=low
#SBATCH --constraint=avx512&ib
#SBATCH --exclude=node7
export OMP_NUM_THREADS=4
export OPENBLAS_NUM_THREADS=4
export MKL_NUM_THREADS=4
export NUMBA_NUM_THREADS=4
export NUMEXPR_NUM_THREADS=4
export RAYON_NUM_THREADS=4
export POLARS_MAX_THREADS=4
export VECLIB_MAXIMUM_THREADS=4
module load python
exec /opt/python/bin/python -m memento.runner.job '/data/a '"'"'; echo foo/counting/base/batch-job.json'
