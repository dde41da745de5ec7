"""All measurements, as `make bench` runs them: python -m benchmarks [PART] [its options]; see `PARTS`."""

import sys

from benchmarks import bench_channel, bench_core_table, bench_files, bench_forward, bench_sftp

OTHERS = {'channel': bench_channel, 'files': bench_files, 'forward': bench_forward}
PARTS = ('core', 'sftp', 'channel', 'files', 'forward')


def main(arguments: list[str]) -> int:
    for name, part in OTHERS.items():
        if arguments[:1] == [name]:
            return part.main(arguments[1:])

    parts = arguments[:1] if arguments[:1] and arguments[0] in PARTS else list(PARTS)
    rest = arguments[1:] if len(parts) == 1 else arguments
    options = bench_sftp.parse_options(rest)    # errors show before anything runs
    status = 0

    if 'core' in parts and not options.profile:
        status = bench_core_table.main(options.output, 0.1 if options.quick else 0.5)

    if 'sftp' in parts:
        status = bench_sftp.main(rest) or status

    for name, part in OTHERS.items():
        if name in parts and not options.profile:
            # Of the options only this one means the same to it.
            status = part.main(['--quick'] if options.quick else []) or status

    return status


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
