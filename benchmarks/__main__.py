"""All measurements, as `make bench` runs them: python -m benchmarks [core | sftp | channel | files] [its options]."""

import sys

from benchmarks import bench_channel, bench_core_table, bench_files, bench_sftp

PARTS = ('core', 'sftp', 'channel', 'files')


def main(arguments: list[str]) -> int:
    if arguments[:1] == ['channel']:
        return bench_channel.main(arguments[1:])

    if arguments[:1] == ['files']:
        return bench_files.main(arguments[1:])

    parts = arguments[:1] if arguments[:1] and arguments[0] in PARTS else list(PARTS)
    rest = arguments[1:] if len(parts) == 1 else arguments
    options = bench_sftp.parse_options(rest)    # errors show before anything runs
    status = 0

    if 'core' in parts and not options.profile:
        status = bench_core_table.main(options.output, 0.1 if options.quick else 0.5)

    if 'sftp' in parts:
        status = bench_sftp.main(rest) or status

    if 'channel' in parts and not options.profile:
        # Of the options only this one means the same to it.
        status = bench_channel.main(['--quick'] if options.quick else []) or status

    if 'files' in parts and not options.profile:
        status = bench_files.main(['--quick'] if options.quick else []) or status

    return status


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
