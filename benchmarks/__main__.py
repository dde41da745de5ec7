"""All measurements, as `make bench` runs them: python -m benchmarks [core | sftp] [options of bench_sftp]."""

import sys

from benchmarks import bench_core_table, bench_sftp


def main(arguments: list[str]) -> int:
    parts = arguments[:1] if arguments[:1] in (['core'], ['sftp']) else ['core', 'sftp']
    rest = arguments[1:] if len(parts) == 1 else arguments
    options = bench_sftp.parse_options(rest)    # errors show before anything runs
    status = 0

    if 'core' in parts and not options.profile:
        status = bench_core_table.main(options.output, 0.1 if options.quick else 0.5)

    if 'sftp' in parts:
        status = bench_sftp.main(rest) or status

    return status


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
