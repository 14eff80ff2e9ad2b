#!/bin/bash
# Submits the shards that have parts to do, and nothing if all are done: `infra/slurm/resubmit.sh 64 s3://corpus/ s3://results/run1`.
set -euo pipefail
export SHARDS=$1
INPUT=$2
OUTPUT=$3
shift 3
MISSING=$(audiomill inspect "$OUTPUT" --missing-array-tasks "$SHARDS")
if [ -z "$MISSING" ]; then
    echo "all $SHARDS shards are done"
else
    echo "shards to do: $MISSING"
    sbatch --export=ALL --array="$MISSING" "$(dirname "$0")/array.sbatch" "$INPUT" "$OUTPUT" "$@"
fi
