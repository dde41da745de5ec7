"""All measurements, as `make bench` runs them: python -m benchmarks [core | sftp] [options of bench_sftp]."""

import sys
from pathlib import Path

from benchmarks import bench_core_table, bench_sftp


def main(arguments: list[str]) -> int:
    parts = arguments[:1] if arguments[:1] in (['core'], ['sftp']) else ['core', 'sftp']
    rest = arguments[1:] if len(parts) == 1 else arguments
    output: Path = bench_sftp.parse_options(rest).output    # errors in the options show before anything runs
    status = 0

    if 'core' in parts and '--profile' not in rest:
        status = bench_core_table.main(output)

    if 'sftp' in parts:
        status = bench_sftp.main(rest) or status

    return status


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
