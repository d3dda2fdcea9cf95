"""The benchmark runs and prints every rate."""

import pathlib
import re
import subprocess
import sys


def test_the_benchmark_prints_all_rates():
    small = ['--encoder=resnet18(stem="patch", width=4, stages=(1,))', '--size=8', '--batch_size=8']
    done = subprocess.run(
        [sys.executable, '-m', 'ssl_extract.benchmark', *small, '--seconds=0.01'],
        cwd=pathlib.Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for name in ('collected', 'online', 'SimCLR', 'feature extraction', 'linear probe'):
        (line,) = [line for line in done.stdout.splitlines() if name in line]
        rate, share = re.search(r' (\d+) \S+/s +([\d.]+)% of it', line).groups()
        assert int(rate) > 0 and float(share) >= 0
