. /work/runs/demo/env.sh
nice -n 10 taskset -c 1 $PY -m benchmarks demo --seeds 0 1 --processes 2 --folder /work/runs/demo --json /work/runs/demo/demo.json > /work/runs/demo/go2.log 2>&1
